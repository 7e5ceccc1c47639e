//! What the network says of datagrams that it could not deliver.
//!
//! Linux queues ICMP errors beside the datagrams of a socket that asked for them, with the address each is about. Other
//! systems tell them to a socket of one peer only: there a dial to a closed port is given up when its time is over.

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{is_too_large, listen, next};
#[cfg(target_os = "linux")]
pub(super) use linux::{is_too_large, listen, next};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{self, IoSliceMut},
        net::{SocketAddr, SocketAddrV4, SocketAddrV6},
        os::fd::AsRawFd,
    };

    use nix::{
        errno::Errno,
        sys::socket::{ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg, setsockopt, sockopt},
    };
    use tokio::net::UdpSocket;

    /// Room for one error and the address of the router that told it.
    const CONTROL_BYTES: usize = 256;

    /// Asks for errors. Returns whether they will come.
    pub(in crate::udp) fn listen(socket: &UdpSocket, is_v6: bool) -> io::Result<bool> {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if is_v6 {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        Ok(true)
    }

    /// Takes the next error, and the address that the datagram was for.
    pub(in crate::udp) fn next(socket: &UdpSocket) -> io::Result<(Option<SocketAddr>, io::Error)> {
        let (mut control, mut datagram) = ([0; CONTROL_BYTES], [0; 1]);
        let mut buffers = [IoSliceMut::new(&mut datagram)];
        let flags = MsgFlags::MSG_ERRQUEUE;
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags)?;
        let errno = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                i32::try_from(error.ee_errno).ok()
            }
            _ => None,
        });
        let error = io::Error::from_raw_os_error(errno.unwrap_or_default());
        Ok((message.address.as_ref().and_then(socket_address), error))
    }

    /// Whether a datagram is larger than the interface, or a link behind it, carries.
    pub(in crate::udp) fn is_too_large(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
    }

    fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())).filter(|_| address.len() > 0)
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::{io, net::SocketAddr};

    use tokio::net::UdpSocket;

    pub(in crate::udp) fn listen(_: &UdpSocket, _: bool) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::udp) fn next(_: &UdpSocket) -> io::Result<(Option<SocketAddr>, io::Error)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(in crate::udp) fn is_too_large(_: &io::Error) -> bool {
        false
    }
}
