//! Demo: stand-in backend, ping bot and custom bot in one terminal
fn main() {}
