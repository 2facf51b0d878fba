"""What a unit will cost on an FPGA, estimated from what it is made of."""
