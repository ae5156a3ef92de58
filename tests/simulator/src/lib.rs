//! Toolzz simulator.
