//! Fills the headroom of a packet, so that a program that reads it is found out.
