//! Forecast: what the migration will be, derived from the facts alone. Pure: no clock, no I/O.

pub mod budget;
