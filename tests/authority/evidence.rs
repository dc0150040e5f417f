//! Promise 6: a destination may demand which rules judged, and on which facts.
