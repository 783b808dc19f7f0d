"""What Chainrule is held against. Each module is a process of its own, told what to do line by line."""
