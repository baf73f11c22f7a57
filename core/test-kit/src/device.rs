//! A device as the backend's users configure it, in one expression.

use core::fmt::Display;

/// An entity with its credential and sensors, for [`Lab::add`](crate::Lab::add).
///
/// ```
/// # use grafolean_test::Device;
/// let device = Device::new(17)
///     .details(r#"{"ipv4": "192.0.2.1"}"#) // JSON as text, or a serde_json::Value
///     .credential(r#"{"timeout": "3"}"#)
///     .sensor(r#"{"register": 4}"#, 60) // every 60 s
///     .sensor(r#"{"register": 5}"#, 300);
/// # let _ = device;
/// ```
#[derive(Clone, Debug)]
pub struct Device {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) entity_type: String,
    pub(crate) parent: Option<u64>,
    pub(crate) account: Option<u64>,
    pub(crate) protocol: Option<String>,
    pub(crate) details: String,
    pub(crate) credential: Credential,
    pub(crate) sensors: Vec<Sensor>,
    pub(crate) assigned: bool,
}

#[derive(Clone)]
pub(crate) enum Credential {
    /// None was chosen: one without details, where there is a protocol.
    Default,
    New(String),
    Known(u64),
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Credential::Default => f.write_str("Default"),
            Credential::New(_) => f.write_str("New(..)"),
            Credential::Known(id) => write!(f, "Known({id})"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Sensor {
    New { details: String, default_interval: Option<i32> },
    Known { id: u64, interval: Option<i32> },
}

impl Device {
    /// A device without details, credential details and sensors, of the bot's protocol and assigned to it; id 0: the backend
    /// chooses one.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Device {
            id,
            name: format!("Device {id}"),
            entity_type: "device".to_owned(),
            parent: None,
            account: None,
            protocol: None,
            details: "{}".to_owned(),
            credential: Credential::Default,
            sensors: Vec::new(),
            assigned: true,
        }
    }

    /// With this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Device { name: name.to_owned(), ..self }
    }

    /// With these details: a JSON object.
    #[must_use]
    pub fn details(self, json: impl Display) -> Self {
        Device { details: json.to_string(), ..self }
    }

    /// With a new credential of these details: a JSON object.
    #[must_use]
    pub fn credential(self, json: impl Display) -> Self {
        Device { credential: Credential::New(json.to_string()), ..self }
    }

    /// With a credential that the backend has ([`Lab::credential`](crate::Lab::credential)).
    #[must_use]
    pub fn credential_id(self, id: u64) -> Self {
        Device { credential: Credential::Known(id), ..self }
    }

    /// With one more sensor, a new one without details that runs at this interval in seconds.
    #[must_use]
    pub fn every(self, interval_s: i32) -> Self {
        self.sensor("{}", interval_s)
    }

    /// With one more sensor, a new one of these details, a JSON object, and this default interval in seconds, if any.
    #[must_use]
    pub fn sensor(mut self, json: impl Display, interval_s: impl Into<Option<i32>>) -> Self {
        let (details, default_interval) = (json.to_string(), interval_s.into());
        self.sensors.push(Sensor::New { details, default_interval });
        self
    }

    /// With one more sensor, one that the backend has ([`Lab::sensor`](crate::Lab::sensor)), at its default interval or at this
    /// one in seconds.
    #[must_use]
    pub fn sensor_id(mut self, id: u64, interval_s: impl Into<Option<i32>>) -> Self {
        self.sensors.push(Sensor::Known { id, interval: interval_s.into() });
        self
    }

    /// A part of another entity.
    #[must_use]
    pub fn parent(self, id: u64) -> Self {
        Device { parent: Some(id), ..self }
    }

    /// In another account than the lab's first, one that was made by [`Lab::add_account`](crate::Lab::add_account).
    #[must_use]
    pub fn account(self, account: u64) -> Self {
        Device { account: Some(account), ..self }
    }

    /// Of another protocol than the bot's; then no bot is named.
    #[must_use]
    pub fn protocol(self, name: &str) -> Self {
        Device { protocol: Some(name.to_owned()), assigned: false, ..self }
    }

    /// Without a bot: what a person has not assigned, or what a deleted bot has left.
    #[must_use]
    pub fn unassigned(self) -> Self {
        Device { assigned: false, ..self }
    }
}
