//! One file, one stream, several servers.
//!
//! A client asks one server, the primary, for a file. The primary brings other servers into the session and has each
//! write some of the file's ranges into the client's stream, writing others itself; the client reads one ordered stream.
//! `cargo run --release -p multi-path-demo` shows it in one process. The same roles run in processes of their own:
//!
//! ```text
//! multi-path-demo init keys
//! multi-path-demo serve secondary --keys keys --dir files --name secondary-1 --listen 127.0.0.1:4434
//! multi-path-demo serve primary --keys keys --dir files --listen 127.0.0.1:4433 --secondary secondary-1@127.0.0.1:4434
//! multi-path-demo fetch 127.0.0.1:4433 movie.bin --keys keys --output copy.bin
//! ```

#![expect(clippy::print_stdout, reason = "this is a program, and its stdout is its result")]

mod certificates;
mod cli;
mod client;
mod content;
mod demo;
mod limit;
mod message;
mod primary;
mod report;
mod secondary;
mod server;
mod transfer;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use kwik_tokio::{PathTarget, ServerConfig, dial, listen};
use tokio::sync::watch;

use crate::{
    certificates::KeyDir,
    cli::{Cli, Command, ResultArgs, ServeArgs, ServeRole, server_name},
    client::{Progress, TemporaryFile},
    demo::Demo,
    limit::Limit,
    report::Report,
    server::Site,
};

#[tokio::main]
async fn main() -> ExitCode {
    // `RUST_LOG=info` tells what happens to sessions, `debug` why, `trace` every frame.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    let json = match &cli.command {
        None => cli.demo.result.json,
        Some(Command::Fetch { result, .. }) => result.json,
        Some(_) => false,
    };
    match run(cli).await {
        Ok(report) => {
            if let Some(report) = report {
                println!("{}\nOK", report.table());
                if json {
                    println!("{}", serde_json::json!(report));
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            if json {
                println!("{}", serde_json::json!({ "ok": false, "error": format!("{error:#}") }));
            }
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked. A command that fetches a file returns its report.
async fn run(cli: Cli) -> Result<Option<Report>> {
    match cli.command {
        None => {
            let args = cli.demo;
            let demo = Demo {
                library: args.content.library(),
                servers: args.servers.into(),
                limits: args.limits,
                kill_one: args.kill_one,
                output: args.result.output,
            };
            demo.run().await.map(Some)
        }
        Some(Command::Init { dir, servers }) => {
            let names: Vec<_> = (0..servers).map(server_name).collect();
            KeyDir::new(&dir).init(&names)?;
            println!("keys of {} are in {}", names.join(", "), dir.display());
            Ok(None)
        }
        Some(Command::Serve { role }) => serve(role).await.map(|()| None),
        Some(Command::Fetch { address, name, keys, result }) => fetch(address, &name, &keys, &result).await.map(Some),
    }
}

/// Runs one server until it is interrupted.
async fn serve(role: ServeRole) -> Result<()> {
    match role {
        ServeRole::Primary { server, secondaries } => {
            let keys = KeyDir::new(&server.keys);
            let config = keys.server(&server_name(0))?.server_config()?;
            let targets = secondaries.into_iter().map(|(server_name, address)| {
                let identity = keys.identity(&server_name)?;
                Ok(PathTarget { address, server_name, identity })
            });
            let targets = targets.collect::<Result<_>>()?;
            serve_until_interrupted(server, config, targets).await
        }
        ServeRole::Secondary { server, name } => {
            let keys = KeyDir::new(&server.keys);
            let config = keys.server(&name)?.server_config()?.trust_primary(keys.identity(&server_name(0))?);
            serve_until_interrupted(server, config, Vec::new()).await
        }
    }
}

async fn serve_until_interrupted(args: ServeArgs, config: ServerConfig, secondaries: Vec<PathTarget>) -> Result<()> {
    let listener = listen(args.listen, config).await?;
    println!("listening on {}", listener.local_addr());
    let limit = Arc::new(Limit::new(args.limit));
    let site = Arc::new(Site { library: args.library(), secondaries, limit });
    tokio::select! {
        () = server::serve(&listener, site) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("interrupts cannot be received")?,
    }
    listener.close(0, "the server is stopped").await;
    Ok(())
}

async fn fetch(address: SocketAddr, name: &str, keys: &Path, result: &ResultArgs) -> Result<Report> {
    let config = KeyDir::new(keys).client_config()?;
    let (progress, watched) = watch::channel(Progress::default());
    let drawing = tokio::spawn(report::draw(watched));

    let temporary = TemporaryFile::new();
    let output = result.output.as_deref().unwrap_or_else(|| temporary.path());
    let session = dial((address, server_name(0)), config).await?;
    let fetched = client::fetch(&session, name, output, &progress).await;
    let closed = session.close(0, "done").await;

    drop(progress);
    drawing.await?;
    let report = fetched?;
    closed?;
    Ok(report)
}
