//! An agent of an earlier version, which knows no service.

use io_adapters::access_url::control_target;
use proto_core::key::NodeSecret;
use proto_core::node::NodeConfig;
use proto_core::stream::CODE_UNKNOWN_SERVICE;
use proto_core::wire::control::NodeKind;
use std::time::{Duration, Instant};
use tests::deployment::Deployment;

/// Runs one for as long as the test does.
pub(crate) fn old_agent(deployment: &Deployment<'_>, token: &str) -> Result<(), Box<dyn std::error::Error>> {
    let config = NodeConfig {
        node_key: NodeSecret::generate(&io_adapters::entropy::seed()),
        kind: NodeKind::Agent,
        control: Some(control_target(deployment.url(), token)?),
        build: "warren-agent 0.0.1".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: std::collections::BTreeMap::new(),
        relay: None,
        relay_map: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let node = io_adapters::driver::start_here(config).await;
            while let Some(incoming) = node.accept().await {
                incoming.stream.reset(CODE_UNKNOWN_SERVICE);
            }
        });
    });
    let until = Instant::now() + Duration::from_secs(20);
    while deployment.json(&["workspaces", "list"])?[0]["status"] != "connected" {
        if Instant::now() > until {
            return Err("the old agent does not connect".into());
        }
    }
    Ok(())
}
