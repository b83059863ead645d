//! What is counted of limits, caches and ways to tell who calls.

use super::{Count, Sharded};

/// What a limit decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    Allow,
    /// Over it, and let through.
    Soft,
    Deny,
    /// It would have been refused.
    Dry,
    /// Refused, and its source banned.
    Ban,
}

impl Decided {
    pub const ALL: [(Decided, &'static str); 5] = [
        (Decided::Allow, "allow"),
        (Decided::Soft, "soft"),
        (Decided::Deny, "deny"),
        (Decided::Dry, "dry_run"),
        (Decided::Ban, "ban"),
    ];

    pub fn word(self) -> &'static str {
        Decided::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, word)| word)
    }
}

/// What one worker counted for one limit.
#[derive(Debug, Default)]
pub struct LimitShard {
    pub(super) decisions: [Count; Decided::ALL.len()],
    /// Units asked for within even shares.
    within: Count,
}

impl LimitShard {
    pub fn count(&self, decided: Decided) {
        self.decisions[decided as usize].add(1);
    }

    pub fn within(&self, units: u64) {
        self.within.add(units);
    }

    pub fn asked_within(&self) -> u64 {
        self.within.get()
    }

    pub fn decisions(&self, decided: Decided) -> u64 {
        self.decisions[decided as usize].get()
    }
}

/// The series of one limit.
#[derive(Debug)]
pub struct LimitStats {
    pub shards: Sharded<LimitShard>,
}

/// What a cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    Hit,
    Miss,
    /// Answered with what was no longer fresh.
    Stale,
    /// The upstream said that what was stored still holds.
    Revalidated,
    /// Another request's fetch was waited for.
    Coalesced,
    /// The cache had no part in it.
    Bypass,
}

impl CacheResult {
    pub const ALL: [CacheResult; 6] = [
        CacheResult::Hit,
        CacheResult::Miss,
        CacheResult::Stale,
        CacheResult::Revalidated,
        CacheResult::Coalesced,
        CacheResult::Bypass,
    ];

    pub fn word(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::Stale => "stale",
            CacheResult::Revalidated => "revalidated",
            CacheResult::Coalesced => "coalesced",
            CacheResult::Bypass => "bypass",
        }
    }
}

/// What one worker counted for one cache.
#[derive(Debug, Default)]
pub struct CacheShard {
    results: [Count; CacheResult::ALL.len()],
}

/// The series of one cache.
#[derive(Debug)]
pub struct CacheStats {
    pub(super) shards: Sharded<CacheShard>,
}

impl CacheStats {
    #[inline]
    pub fn count(&self, worker: usize, result: CacheResult) {
        self.shards.of(worker).results[result as usize].add(1);
    }

    pub fn results(&self, result: CacheResult) -> u64 {
        self.shards.sum(|shard| shard.results[result as usize].get())
    }
}

/// What became of an attempt to tell who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResult {
    Ok,
    /// There are no credentials.
    Missing,
    /// They are none, or there more than once.
    Malformed,
    /// Nobody's.
    Unknown,
    Expired,
    /// Not good yet.
    Early,
    /// Nobody who is believed signed it.
    Signature,
    /// Not by, for, or of whom it has to be.
    Claims,
    /// It was there before.
    Replayed,
    /// Who is asked elsewhere says no.
    Refused,
    /// It cannot be told: what is needed for that is not there.
    Unavailable,
}

impl AuthResult {
    pub const ALL: [(AuthResult, &'static str); 11] = [
        (AuthResult::Ok, "ok"),
        (AuthResult::Missing, "missing"),
        (AuthResult::Malformed, "malformed"),
        (AuthResult::Unknown, "unknown"),
        (AuthResult::Expired, "expired"),
        (AuthResult::Early, "early"),
        (AuthResult::Signature, "signature"),
        (AuthResult::Claims, "claims"),
        (AuthResult::Replayed, "replayed"),
        (AuthResult::Refused, "refused"),
        (AuthResult::Unavailable, "unavailable"),
    ];
}

/// What one worker counted for one way to tell who calls.
#[derive(Debug, Default)]
pub struct AuthShard(pub(super) [Count; AuthResult::ALL.len()]);

/// The series of one `[auth.NAME]`.
#[derive(Debug)]
pub struct AuthStats {
    pub shards: Sharded<AuthShard>,
}

impl AuthStats {
    /// Only by this worker.
    pub fn count(&self, worker: usize, result: AuthResult) {
        self.shards.of(worker).0[result as usize].add(1);
    }

    pub fn results(&self, result: AuthResult) -> u64 {
        self.shards.sum(|shard| shard.0[result as usize].get())
    }
}
