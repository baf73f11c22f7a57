//! A stand-in for the Grafolean backend: the bot side of its API
