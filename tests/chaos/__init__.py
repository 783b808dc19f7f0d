"""A campaign of faults against real coordinators: whatever dies, a job ends with the bits it would have had."""
