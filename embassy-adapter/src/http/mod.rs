//! HTTP/1.1 over any stream.
