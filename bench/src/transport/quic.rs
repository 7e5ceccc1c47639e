//! The ends of quinn, and those of noq, which has quinn's interface under another name.

macro_rules! peer {
    ($library:ident) => {
        pub(crate) mod $library {
            use std::net::SocketAddr;
            use std::sync::Arc;

            use anyhow::Result;
            use rustls::RootCertStore;
            use $library::{
                ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
                TransportConfig, congestion::CubicConfig,
            };

            use crate::task::Task;
            use crate::transport::{Credentials, SERVER_NAME, Settings, bind, loopback};

            /// A configuration that dials again and again. Among equals, a socket for each session as KWIK has it.
            pub(crate) struct Dialer {
                server: SocketAddr,
                config: ClientConfig,
                is_equal: bool,
                shared: Option<Endpoint>,
            }

            impl Dialer {
                pub(crate) fn new(task: &Task, server: SocketAddr, roots: RootCertStore) -> Result<Self> {
                    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
                    let shared = if task.is_equal {
                        let mut transport = equal_transport();
                        transport.keep_alive_interval(Some(Settings::KEEP_ALIVE));
                        config.transport_config(Arc::new(transport));
                        None
                    } else {
                        Some(endpoint(None, false)?)
                    };
                    Ok(Self { server, config, is_equal: task.is_equal, shared })
                }

                pub(crate) async fn dial(&self) -> Result<Connection> {
                    let endpoint = match &self.shared {
                        Some(shared) => shared.clone(),
                        None => endpoint(None, self.is_equal)?,
                    };
                    Ok(endpoint.connect_with(self.config.clone(), self.server, SERVER_NAME)?.await?)
                }
            }

            pub(crate) fn listen(task: &Task, credentials: Credentials) -> Result<Endpoint> {
                let mut config = ServerConfig::with_single_cert(vec![credentials.certificate], credentials.key)?;
                if task.is_equal {
                    config.transport_config(Arc::new(equal_transport()));
                }
                endpoint(Some(config), task.is_equal)
            }

            fn endpoint(server: Option<ServerConfig>, is_equal: bool) -> Result<Endpoint> {
                let socket = bind(loopback(), is_equal)?;
                Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?)
            }

            fn equal_transport() -> TransportConfig {
                let mut mtu = MtuDiscoveryConfig::default();
                mtu.upper_bound(Settings::MTU_MAX);
                let mut transport = TransportConfig::default();
                let idle = u32::try_from(Settings::IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
                transport
                    .max_concurrent_bidi_streams(Settings::BIDI_STREAMS.into())
                    .stream_receive_window(Settings::STREAM_WINDOW.into())
                    .receive_window(Settings::CONNECTION_WINDOW.into())
                    .send_window(Settings::SEND_WINDOW)
                    .initial_mtu(Settings::MTU_INITIAL)
                    .mtu_discovery_config(Some(mtu))
                    .max_idle_timeout(Some($library::VarInt::from_u32(idle).into()))
                    .congestion_controller_factory(Arc::new(CubicConfig::default()));
                transport
            }
        }
    };
}

peer!(quinn);
peer!(noq);
