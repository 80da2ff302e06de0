//! distcc's wire format, host lines and client settings, and the supervision of `distccd`.
