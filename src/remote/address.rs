//! Which addresses a connection may go to: a name may lead anywhere, also into the operator's own network.

use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

/// Which addresses a connection may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Every one: for a URL that nobody but who runs the operator can set.
    #[default]
    Any,
    /// Those of the public Internet. A URL with a literal address that stands in the list of allowed hosts is fine too.
    Public,
    /// Also loopback and private ones; never those where clouds give out credentials, link-local or not.
    PublicAndPrivate,
}

/// What kind of address it is, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    /// Loopback and what networks have for themselves.
    Private,
    /// Link-local, multicast, reserved, for documentation, of a cloud's own: nothing that a service has.
    Other,
}

/// Where clouds give out credentials and run their agents, beside 169.254/16. The chart's NetworkPolicy leaves out the same.
const CLOUDS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The same, of two clouds, beside fe80::/10.
const CLOUDS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

impl Addresses {
    /// Whether it may be used.
    pub fn permit(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Public => kind(address) == Kind::Public,
            Self::PublicAndPrivate => kind(address) != Kind::Other,
        }
    }

    /// Those of a name's addresses that may be used: a name may lead to good ones and bad ones at once.
    fn of(self, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let any = !found.is_empty();
        found.retain(|address| self.permit(address.ip()));
        if any && found.is_empty() { Err(Refused) } else { Ok(found) }
    }
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// Source: IANA IPv4 Special-Purpose Address Registry (RFC 6890).
fn kind_v4(address: Ipv4Addr) -> Kind {
    match address.octets() {
        _ if CLOUDS_V4.contains(&address) => Kind::Other,
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Kind::Private,
        [0 | 224.., ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Kind::Other,
        _ => Kind::Public,
    }
}

/// Only global unicast is public. An address that stands for an IPv4 address is never: it is how a check of names is
/// got round.
/// Source: IANA IPv6 Special-Purpose Address Registry (RFC 6890).
fn kind_v6(address: Ipv6Addr) -> Kind {
    let embedded = |high: u16, low: u16| {
        let address = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
        if kind_v4(address) == Kind::Other { Kind::Other } else { Kind::Private }
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Private,
        // IPv4-mapped, NAT64 (RFC 6052), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            embedded(high, low)
        }
        _ if CLOUDS_V6.contains(&address) => Kind::Other,
        // Unique local.
        [0xfc00..=0xfdff, ..] => Kind::Private,
        // IETF protocol assignments (Teredo among them), documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Other,
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Other,
    }
}

/// A name that leads only where a connection may not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the host name leads to an address that is not allowed")]
pub(super) struct Refused;

/// Resolves names as the system does.
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok::<Addrs, Box<dyn StdError + Send + Sync>>(Box::new(found.into_iter()))
        })
    }
}

/// Resolves names, and leaves out what may not be used. The connector gets what is left and resolves nothing itself, so
/// that what was checked is what is connected to, however often the name changes its answer.
pub(super) struct Checked {
    pub(super) addresses: Addresses,
    pub(super) resolver: Arc<dyn Resolve>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (addresses, answer) = (self.addresses, self.resolver.resolve(name));
        Box::pin(async move {
            let permitted = addresses.of(answer.await?.collect())?;
            Ok::<Addrs, Box<dyn StdError + Send + Sync>>(Box::new(permitted.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_that_leads_to_several_only_what_may_be_used_is_tried() {
        let all = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
        };
        let mixed = ["127.0.0.1", "1.1.1.1", "169.254.169.254", "::ffff:10.0.0.1", "2606:4700::1111"];
        assert_eq!(Addresses::Public.of(all(&mixed)), Ok(all(&["1.1.1.1", "2606:4700::1111"])));
        let private = ["127.0.0.1", "1.1.1.1", "::ffff:10.0.0.1", "2606:4700::1111"];
        assert_eq!(Addresses::PublicAndPrivate.of(all(&mixed)), Ok(all(&private)));
        assert_eq!(Addresses::Public.of(all(&["10.0.0.1", "::1"])), Err(Refused));
        assert_eq!(Addresses::Public.of(Vec::new()), Ok(Vec::new()), "a name without addresses");
    }

    /// Both lists are kept by hand.
    #[test]
    fn the_charts_network_policy_leaves_out_where_clouds_give_out_credentials() {
        let chart = include_str!("../../charts/toolzz-operator/values.yaml");
        let values: serde_json::Value = serde_saphyr::from_str(chart).unwrap();
        let v4 = CLOUDS_V4.iter().map(|address| format!("{address}/32"));
        let v6 = CLOUDS_V6.iter().map(|address| format!("{address}/128"));
        let mut known: Vec<String> = ["169.254.0.0/16", "fe80::/10"].map(str::to_owned).into();
        known.extend(v4.chain(v6));
        known.sort();
        for peers in ["apiServer", "toolzz"] {
            let blocks = values["networkPolicy"][peers]["to"].as_array().unwrap().iter();
            let except = blocks.flat_map(|peer| peer["ipBlock"]["except"].as_array().unwrap());
            let mut except: Vec<&str> = except.map(|range| range.as_str().unwrap()).collect();
            except.sort_unstable();
            assert_eq!(except, known, "{peers}");
        }
    }

    #[test]
    fn where_a_connection_may_go() {
        use Kind::{Other, Private, Public};
        for (address, expected) in [
            ("1.1.1.1", Public),
            ("9.255.255.255", Public),
            ("172.15.255.255", Public),
            ("172.32.0.0", Public),
            ("100.63.255.255", Public),
            ("100.128.0.0", Public),
            ("192.0.1.1", Public),
            ("198.20.0.1", Public),
            ("223.255.255.255", Public),
            ("127.0.0.1", Private),
            ("127.255.255.254", Private),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.0.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("100.100.100.200", Other),
            ("100.100.100.201", Private),
            ("168.63.129.16", Other),
            ("168.63.129.17", Public),
            ("::ffff:100.100.100.200", Other),
            ("0.0.0.0", Other),
            ("0.1.2.3", Other),
            ("169.254.169.254", Other),
            ("192.0.0.192", Other),
            ("192.0.2.1", Other),
            ("192.88.99.1", Other),
            ("198.18.0.1", Other),
            ("198.19.255.255", Other),
            ("198.51.100.1", Other),
            ("203.0.113.1", Other),
            ("224.0.0.1", Other),
            ("240.0.0.1", Other),
            ("255.255.255.255", Other),
            ("2606:4700::1111", Public),
            ("2a00:1450::1", Public),
            ("2001:200::1", Public),
            ("::1", Private),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("fd00:ec2::254", Other),
            ("fd00:ec2::253", Private),
            ("fd20:ce::254", Other),
            ("::ffff:8.8.8.8", Private),
            ("::ffff:127.0.0.1", Private),
            ("::ffff:169.254.169.254", Other),
            ("2002:0808:0808::1", Private),
            ("2002:7f00:1::1", Private),
            ("2002:a9fe:a9fe::1", Other),
            ("64:ff9b::8.8.8.8", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::169.254.169.254", Other),
            ("64:ff9b:1::10.0.0.1", Other),
            ("::", Other),
            ("::127.0.0.1", Other),
            ("fe80::1", Other),
            ("fec0::1", Other),
            ("ff02::1", Other),
            ("100::1", Other),
            ("2001::1", Other),
            ("2001:db8::1", Other),
            ("3fff::1", Other),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(kind(address), expected, "{address}");
            assert_eq!(Addresses::Public.permit(address), expected == Public, "{address}");
            assert_eq!(Addresses::PublicAndPrivate.permit(address), expected != Other, "{address}");
            assert!(Addresses::Any.permit(address));
        }
    }
}
