//! Promise 8: only what nobody else can write is believed.
