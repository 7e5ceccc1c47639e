//! Sessions over real UDP sockets on the loopback interface, by topic.

#[cfg(test)]
mod cancel;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod common;
#[cfg(test)]
mod config;
#[cfg(test)]
mod delegation;
mod destructors;
#[cfg(test)]
mod distribution;
#[cfg(test)]
mod echo;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod many_streams;
#[cfg(test)]
mod mtu;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod rebind;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod unanswered;
#[cfg(test)]
mod workers;
