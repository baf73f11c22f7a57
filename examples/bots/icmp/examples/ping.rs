//! Pings hosts until interrupted: `cargo run --example icmp-ping -- HOST...`

use std::error::Error;
use std::time::Duration;

use grafolean_icmp::{Family, Icmp, IcmpConfig};

const TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let hosts: Vec<String> = std::env::args().skip(1).collect();
    if hosts.is_empty() {
        return Err("usage: icmp-ping HOST...".into());
    }
    let icmp = Icmp::open(IcmpConfig::default()).map_err(|error| error.to_string())?;
    for socket in icmp.sockets() {
        println!(
            "{}: {:?} socket, buffer of {} bytes",
            socket.family, socket.kind, socket.receive_buffer_bytes
        );
    }
    for why in [Family::V4, Family::V6].into_iter().filter_map(|family| icmp.unavailable(family)) {
        println!("{why}");
    }
    for host in hosts {
        let icmp = icmp.clone();
        tokio::spawn(async move {
            loop {
                println!("{host}: {}", ping(&icmp, &host).await);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    tokio::signal::ctrl_c().await?;
    println!("{:#?}", icmp.stats());
    Ok(())
}

async fn ping(icmp: &Icmp, host: &str) -> String {
    let target = match icmp.resolve(host).await {
        Ok(target) => target,
        Err(error) => return error.to_string(),
    };
    match icmp.ping(target, TIMEOUT).await {
        Ok(Some(rtt)) => format!("{target} answered after {:.3} ms", rtt.as_secs_f64() * 1e3),
        Ok(None) => format!("{target} did not answer within {} s", TIMEOUT.as_secs()),
        Err(error) => error.to_string(),
    }
}
