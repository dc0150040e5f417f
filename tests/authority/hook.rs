//! Promise 5: the hook decides in time and journals each decision.
