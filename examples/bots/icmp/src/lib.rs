//! ICMP echo for tokio on Linux: one shared socket per address family
