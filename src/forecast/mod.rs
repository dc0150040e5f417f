//! Forecast: what the migration will be like, from facts alone. No input or output, no clock.

pub mod replay;
