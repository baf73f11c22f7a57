//! The logic of Grafolean's ICMP ping bot, no_std
