//! Upstreams by name: resolved at the start, and again from time to time.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use super::line::Line;
use super::upstreams::Upstreams;
use crate::limits::MAX_UPSTREAMS;
use crate::reactor::Address;
use crate::sys::describe;
use crate::time::Instant;

/// What is named as an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(Address),
    /// A host by its name, and a port.
    Name(Box<str>, u16),
}

impl Target {
    /// All its addresses, in an order that does not change. Waits for a name server.
    fn resolve(&self) -> io::Result<Vec<Address>> {
        match self {
            Target::Address(address) => Ok(vec![address.clone()]),
            Target::Name(host, port) => {
                let mut found: Vec<_> = (&**host, *port).to_socket_addrs()?.collect();
                found.sort_unstable();
                found.dedup();
                match found.is_empty() {
                    true => Err(io::Error::other("the name has no address")),
                    false => Ok(found.into_iter().map(Address::Ip).collect()),
                }
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A target, and what is known of it.
#[derive(Debug)]
struct Known {
    target: Target,
    addresses: Vec<Address>,
    /// The last try has failed, which was told.
    failed: bool,
}

/// Keeps the upstreams at the addresses that their names have. It waits for name servers, so it has a thread of its own.
#[derive(Debug)]
pub struct Resolver {
    upstreams: Arc<Upstreams>,
    targets: Vec<Known>,
}

impl Resolver {
    /// Resolves all targets.
    ///
    /// # Errors
    ///
    /// That of the first name that has no address, with its target.
    ///
    /// # Panics
    ///
    /// If there are no targets.
    pub fn start(targets: &[Target]) -> Result<Resolver, (Target, io::Error)> {
        let known = |target: &Target| match target.resolve() {
            Ok(addresses) => Ok(Known { target: target.clone(), addresses, failed: false }),
            Err(error) => Err((target.clone(), error)),
        };
        let targets: Vec<_> = targets.iter().map(known).collect::<Result<_, _>>()?;
        let addresses = targets.iter().flat_map(|known| known.addresses.clone()).collect();
        let upstreams = Arc::new(Upstreams::new(addresses));
        for known in targets.iter().filter(|known| matches!(known.target, Target::Name(..))) {
            known.tell(&upstreams, None);
        }
        Ok(Resolver { upstreams, targets })
    }

    /// The upstreams.
    #[must_use]
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// The addresses of all targets.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.targets.iter().flat_map(|known| &known.addresses)
    }

    /// Whether there is a name to be resolved again.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.targets.iter().any(|known| matches!(known.target, Target::Name(..)))
    }

    /// Resolves all names again. One that cannot be resolved keeps its addresses, and so does one whose addresses are the
    /// proxy's own, to which it would connect for ever.
    pub fn resolve_again(&mut self, is_own: impl Fn(&Address) -> bool) {
        for index in 0..self.targets.len() {
            let known = &mut self.targets[index];
            let before = known.addresses.clone();
            let error = match known.target.resolve() {
                Ok(addresses) if addresses == before && !known.failed => continue,
                Ok(addresses) if addresses.iter().any(&is_own) => {
                    Some("it has the address that the proxy itself listens on".to_owned())
                }
                Ok(addresses) => {
                    known.addresses = addresses;
                    let all = self.addresses().cloned().collect();
                    (!self.upstreams.set(all)).then(|| {
                        format!("there were more than {MAX_UPSTREAMS} addresses since the start: start again")
                    })
                }
                Err(error) => Some(describe(&error)),
            };
            let known = &mut self.targets[index];
            if error.is_some() {
                known.addresses = before;
            }
            if !std::mem::replace(&mut known.failed, error.is_some()) || error.is_none() {
                known.tell(&self.upstreams, error);
            }
        }
    }
}

impl Known {
    fn tell(&self, upstreams: &Upstreams, error: Option<String>) {
        let (name, addresses) = (self.target.to_string(), self.addresses.clone());
        upstreams.tell(Line::Resolved { at: Instant::now(), name, addresses, error });
    }
}
