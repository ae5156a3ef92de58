//! Which part of the namespaces a process works on, and how processes come to share the parts.
//!
//! The number of shards is fixed, and a namespace belongs to one of them by its name alone. Who works on a shard is
//! decided by that shard's Lease and by nothing else. What is decided here moves leases between processes that live, so
//! that each has about as many; if it is wrong, one of them has more to do, and no two do the same.

use std::num::NonZeroU16;

use sha2::{Digest as _, Sha256};

/// One of so many shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    shard: u16,
    of: NonZeroU16,
}

impl Share {
    /// Everything: there is one shard.
    pub const WHOLE: Self = Self { shard: 0, of: NonZeroU16::MIN };

    /// All shards, of so many.
    pub fn all(of: NonZeroU16) -> impl Iterator<Item = Self> {
        (0..of.get()).map(move |shard| Self { shard, of })
    }

    /// Its number.
    pub fn shard(self) -> u16 {
        self.shard
    }

    /// Whether a namespace belongs to it; of the cluster's objects it is asked by their own name. Every version of the
    /// operator must answer the same: two at work at once would else both say yes.
    pub fn has(self, name: &str) -> bool {
        let digest = Sha256::digest(name.as_bytes());
        let number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.of.get()) == u64::from(self.shard)
    }
}

/// What a process does so that each has about as many shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// It is well as it is.
    Rest,
    /// Ask for one: somebody has two more.
    Ask,
    /// Give this one to who asks.
    Give {
        /// The shard's number.
        shard: usize,
        /// Who shall have it.
        to: String,
    },
}

impl Balance {
    /// For this process, as it knows the holders of the shards and who is asking for one.
    pub fn of(me: &str, holders: &[Option<String>], asking: Option<&str>) -> Self {
        let count = |who: &str| holders.iter().flatten().filter(|holder| *holder == who).count();
        let most = holders.iter().flatten().map(|holder| count(holder)).max().unwrap_or_default();
        match asking {
            Some(other) if other != me => {
                // One of those that have the most gives: who holds the last of their shards.
                let last =
                    holders.iter().rposition(|holder| holder.as_ref().is_some_and(|holder| count(holder) == most));
                let mine = last.filter(|shard| holders[*shard].as_deref() == Some(me) && most >= count(other) + 2);
                mine.map_or(Self::Rest, |shard| Self::Give { shard, to: other.to_owned() })
            }
            _ if most >= count(me) + 2 => Self::Ask,
            _ => Self::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_belongs_to_one_shard_for_ever() {
        let of = |name: &str, shards: u16| -> Vec<u16> {
            let all = Share::all(NonZeroU16::new(shards).unwrap());
            all.filter(|share| share.has(name)).map(Share::shard).collect()
        };
        for shards in 1..=16 {
            for number in 0..200 {
                assert_eq!(of(&format!("team-{number}"), shards).len(), 1, "{shards} {number}");
            }
        }
        assert!(Share::WHOLE.has("any") && Share::WHOLE.has(""));
        // What was once released: never to be changed.
        let known = ["default", "team-a", "team-b", "ai"].map(|name| of(name, 3)[0]);
        assert_eq!(known, [1, 0, 2, 2]);
        let mut counts = [0; 3];
        (0..3000).for_each(|number| counts[usize::from(of(&format!("n{number}"), 3)[0])] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn who_has_two_more_than_another_gives_one() {
        use Balance::{Ask, Rest};
        let give = |shard, to: &str| Balance::Give { shard, to: to.to_owned() };
        // (the holders, `-` for nobody; who asks; what `a` does)
        for (holders, asking, expected) in [
            ("aaa", None, Rest),
            ("aaa", Some("b"), give(2, "b")),
            ("aab", Some("c"), give(1, "c")),
            ("aab", Some("b"), Rest),
            ("a", Some("b"), Rest),
            ("abc", Some("d"), Rest),
            ("abb", None, Rest),
            ("bbb", None, Ask),
            ("bba", None, Rest),
            ("bbba", None, Ask),
            ("bbb", Some("a"), Ask),
            ("bbb", Some("c"), Rest),
            // The other one has as many, and holds the last.
            ("aabb", Some("c"), Rest),
            ("bbaa", Some("c"), give(3, "c")),
            ("bbab", Some("c"), Rest),
            ("---", None, Rest),
            ("-a-", Some("b"), Rest),
            ("", None, Rest),
        ] {
            let all: Vec<Option<String>> =
                holders.chars().map(|holder| (holder != '-').then(|| holder.to_string())).collect();
            assert_eq!(Balance::of("a", &all, asking), expected, "{holders} {asking:?}");
        }
    }

    /// Whoever holds what to begin with: asking and giving one by one ends, and then nobody has two more than another.
    #[test]
    fn it_comes_to_rest_in_balance() {
        let members = ["a", "b", "c"];
        for seed in 0..3_usize.pow(6) {
            let mut holders: Vec<Option<String>> =
                (0..6).map(|shard| Some(members[seed / 3_usize.pow(shard) % 3].to_owned())).collect();
            let mut moves = 0;
            while let Some(asking) =
                members.iter().find(|member| Balance::of(member, &holders, None) == Balance::Ask).copied()
            {
                let mut gifts = members.iter().filter_map(|member| match Balance::of(member, &holders, Some(asking)) {
                    Balance::Give { shard, to } => Some((shard, to)),
                    _ => None,
                });
                let (shard, to) = gifts.next().unwrap();
                assert_eq!(gifts.next(), None, "one gives at a time");
                holders[shard] = Some(to);
                moves += 1;
                assert!(moves <= 6, "{seed}");
            }
            let count = |member: &str| holders.iter().flatten().filter(|holder| *holder == member).count();
            assert!(members.iter().all(|member| count(member) == 2), "{holders:?}");
        }
    }
}
