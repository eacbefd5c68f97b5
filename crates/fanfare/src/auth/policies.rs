//! Owns what holds for rooms, from their settings. Does not decide; that is `hub::access`.

use hub::policy::{Delivery, Pattern, Policies, Policy, Retention, Rule};
use hub::room::{ROOM_NAME_BYTES_MAX, RoomKind};

use crate::config::{duration, nonzero};
use crate::settings::{RawPolicy, Rooms};

/// Patterns of rooms. Each is compared with a room's name on every join of a room of no known kind.
const PATTERNS_MAX: usize = 100;

/// Converts the section. `is_dev`: everybody may join where nobody was told not to.
///
/// # Errors
/// Whoever wrote the settings is at fault.
pub(crate) fn policies(rooms: &Rooms, is_dev: bool) -> Result<Policies, String> {
    let retention = Retention {
        events_max: rooms.events_max,
        bytes_max: rooms.bytes_max,
        age_max: nonzero("rooms.age_max", &rooms.age_max)?,
    };
    let mut policies = Policies::defaults(is_dev, retention);
    for kind in RoomKind::ALL {
        let key = format!("rooms.{}", kind.as_str());
        let raw = of_kind(rooms, kind);
        if raw.name.is_some() {
            return Err(format!("{key}.name: only rooms.patterns have names"));
        }
        let policy = convert(&key, raw, policies.of_kind(kind))?;
        policies.set(kind, policy);
    }
    if rooms.patterns.len() > PATTERNS_MAX {
        return Err(format!("rooms.patterns of {} exceed {PATTERNS_MAX}", rooms.patterns.len()));
    }
    for (nth, raw) in rooms.patterns.iter().enumerate() {
        let key = format!("rooms.patterns, entry {}", nth + 1);
        let name = raw.name.as_deref().filter(|name| !name.is_empty() && name.len() <= ROOM_NAME_BYTES_MAX);
        let name = name.ok_or_else(|| format!("{key}: name must be a pattern such as `cursor-*`"))?;
        let policy = convert(&key, raw, policies.of_kind(RoomKind::Other))?;
        policies.add_pattern(Pattern::new(name), policy);
    }
    Ok(policies)
}

fn of_kind(rooms: &Rooms, kind: RoomKind) -> &RawPolicy {
    match kind {
        RoomKind::Global => &rooms.global,
        RoomKind::User => &rooms.user,
        RoomKind::Session => &rooms.session,
        RoomKind::Dashboard => &rooms.dashboard,
        RoomKind::Agents => &rooms.agents,
        RoomKind::Tasks => &rooms.tasks,
        RoomKind::Metrics => &rooms.metrics,
        RoomKind::Workflows => &rooms.workflows,
        RoomKind::System => &rooms.system,
        RoomKind::Admin => &rooms.admin,
        RoomKind::Project => &rooms.project,
        RoomKind::Agent => &rooms.agent,
        RoomKind::Job => &rooms.job,
        RoomKind::Run => &rooms.run,
        RoomKind::Other => &rooms.other,
    }
}

fn convert(key: &str, raw: &RawPolicy, default: &Policy) -> Result<Policy, String> {
    let rule_of = |name: &str, text: &Option<String>, default: &Rule| match text {
        Some(text) => rule(&format!("{key}.{name}"), text),
        None => Ok(default.clone()),
    };
    let delivery = match raw.delivery.as_deref() {
        None => default.delivery,
        Some("log") => Delivery::Log,
        Some("latest") => Delivery::Latest,
        Some("volatile") => Delivery::Volatile,
        Some(other) => return Err(format!("{key}.delivery is log, latest or volatile, not `{other}`")),
    };
    let age_max = match &raw.age_max {
        Some(text) => duration(&format!("{key}.age_max"), text)?,
        None => default.retention.age_max,
    };
    Ok(Policy {
        join: rule_of("join", &raw.join, &default.join)?,
        publish: rule_of("publish", &raw.publish, &default.publish)?,
        delivery,
        retention: Retention {
            events_max: raw.events_max.unwrap_or(default.retention.events_max),
            bytes_max: raw.bytes_max.unwrap_or(default.retention.bytes_max),
            age_max,
        },
        has_presence: raw.presence.unwrap_or(default.has_presence),
    })
}

fn rule(key: &str, text: &str) -> Result<Rule, String> {
    Ok(match text {
        "everyone" => Rule::Everyone,
        "owner" => Rule::Owner,
        "granted" => Rule::Granted,
        "nobody" => Rule::Nobody,
        other => match other.strip_prefix("role:").filter(|role| !role.is_empty()) {
            Some(role) => Rule::Role(role.into()),
            None => {
                return Err(format!(
                    "{key} is everyone, owner, granted, role:<name> or nobody, not `{other}`"
                ));
            }
        },
    })
}
