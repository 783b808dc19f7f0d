"""Between the contract's messages and our own types. Requests are parsed here once, and trusted from then on."""
