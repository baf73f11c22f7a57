//! Runs Grafolean bots on microcontrollers with embassy, without alloc
