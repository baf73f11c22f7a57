//! Users of SNMPv3: their keys, which take long to make, and what is known of each agent's clock.

use core::cell::Cell;

use grafolean_core::hash::Fnv1a64;
use grafolean_core::jobs::Due;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::v3;

use crate::bot::SnmpBot;
use crate::details::{AuthProtocol, PrivProtocol, Settings};
use crate::fault::{Fault, Problem, SnmpError};
use crate::memory::Memory;
use crate::network::Network;
use crate::poll::{self, PollFault};

/// A user of one agent.
pub(crate) struct User {
    pub(crate) keys: v3::LocalizedKeys,
    pub(crate) engine: Cell<v3::Engine>,
}

impl User {
    /// From memory, or by asking the agent.
    #[allow(clippy::type_complexity)]
    pub(crate) async fn of<
        N: Network,
        M: Memory,
        const NAME: usize,
        const CREDENTIAL: usize,
        const SENSOR: usize,
        const OIDS: usize,
        const OPS: usize,
        const P: usize,
    >(
        bot: &SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>,
        due: &Due,
        target: N::Target,
        settings: &Settings<'_>,
        until: Millis,
    ) -> Result<Self, Fault> {
        let credential = hash_of(settings);
        if let Some((engine, keys)) = bot.memory.user(agent(due, credential)) {
            return Ok(User { keys, engine: Cell::new(engine) });
        }
        let failed = |fault| Fault::of(Problem::Poll(fault));
        let engine =
            poll::discover(&bot.network, target, bot.poll_settings(), until).await.map_err(failed)?;
        let master = match bot.memory.master_keys(credential) {
            Some(keys) => keys,
            None => {
                let keys = master_keys(settings).ok_or(failed(PollFault::NoKeys))?;
                bot.memory.keep_master_keys(credential, &keys);
                keys
            }
        };
        Ok(User { keys: master.localize(&engine.id), engine: Cell::new(engine) })
    }
}

/// Remembers what is known of the agent after a run, unless the run gives reason to ask it anew.
pub(crate) fn keep<
    N: Network,
    M: Memory,
    const NAME: usize,
    const CREDENTIAL: usize,
    const SENSOR: usize,
    const OIDS: usize,
    const OPS: usize,
    const P: usize,
>(
    bot: &SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>,
    due: &Due,
    settings: &Settings<'_>,
    engine: v3::Engine,
    keys: &v3::LocalizedKeys,
    error: Option<&SnmpError>,
) {
    let is_doubtful = error.is_some_and(|error| {
        matches!(
            error.problem(),
            Problem::Poll(PollFault::Reported(_) | PollFault::Untrusted(_) | PollFault::NoAnswer { .. })
        )
    });
    let user = if is_doubtful { None } else { Some((engine, keys)) };
    bot.memory.keep_user(agent(due, hash_of(settings)), user);
}

fn agent(due: &Due, credential: u64) -> u64 {
    Fnv1a64::new().u64(due.key.account).u64(due.key.entity).u64(credential).finish()
}

fn hash_of(settings: &Settings<'_>) -> u64 {
    let Settings::V3 { user, auth, privacy } = settings else { return 0 };
    let text = |hash: Fnv1a64, text: &str| hash.u64(text.len() as u64).bytes(text.as_bytes());
    let mut hash = text(Fnv1a64::new(), user);
    if let Some((protocol, password)) = auth {
        hash = text(hash.u64(*protocol as u64 + 1), password);
    }
    if let Some((protocol, password)) = privacy {
        hash = text(hash.u64(*protocol as u64 + 1), password);
    }
    hash.finish()
}

fn master_keys(settings: &Settings<'_>) -> Option<v3::MasterKeys> {
    let Settings::V3 { auth, privacy, .. } = settings else { return None };
    let Some((auth, password)) = auth else { return Some(v3::MasterKeys::none()) };
    let auth = match auth {
        AuthProtocol::Md5 => v3::AuthProtocol::Md5,
        AuthProtocol::Sha1 => v3::AuthProtocol::Sha1,
        AuthProtocol::Sha224 => v3::AuthProtocol::Sha224,
        AuthProtocol::Sha256 => v3::AuthProtocol::Sha256,
        AuthProtocol::Sha384 => v3::AuthProtocol::Sha384,
        AuthProtocol::Sha512 => v3::AuthProtocol::Sha512,
    };
    let password = password.as_bytes();
    let Some((privacy, priv_password)) = privacy else { return v3::MasterKeys::auth(auth, password).ok() };
    let privacy = match privacy {
        PrivProtocol::Des => v3::PrivProtocol::Des,
        PrivProtocol::Aes128 => v3::PrivProtocol::Aes128,
        // As net-snmp makes them.
        PrivProtocol::Aes192 => v3::PrivProtocol::Aes192Blumenthal,
        PrivProtocol::Aes256 => v3::PrivProtocol::Aes256Blumenthal,
    };
    v3::MasterKeys::auth_priv(auth, password, privacy, priv_password.as_bytes()).ok()
}
