//! Which worker does which job, and when it is tried again.
