//! Wire clocks to bus time (being written).
