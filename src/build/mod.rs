//! The wrapped command: its environment, its compilers and tools, and the tokens of its jobserver.
