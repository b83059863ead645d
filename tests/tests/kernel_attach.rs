//! The kernel half's life: how it is attached, what remains of it after a crash, and life without it. K1.

use lab::{
    backend::start_all,
    gateway::{Options, simple_config},
    prelude::*,
};

/// CAP_NET_BIND_SERVICE, to listen on port 80, and nothing else.
const NO_BPF: &[u32] = &[10];

fn has_program(net: &Net, interface: &str) -> Result<bool> {
    Ok(net.link(interface)?["xdp"].is_object())
}

struct Rig {
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig() -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    Ok(Rig { backends: start_all(&net)?, net, _turn: turn })
}

impl Rig {
    fn config(&self, kernel: &str) -> String {
        format!("{}[kernel]\n{kernel}\n", simple_config(&self.backends))
    }

    fn serves(&self, gateway: &Gateway) -> Result<()> {
        let answer = http::get(self.net.client(1), gateway.at4(), "/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }
}

/// The mode that `status` shows for an interface.
fn mode(gateway: &Gateway, interface: &str) -> Result<String> {
    let status = gateway.status()?;
    let interfaces =
        status["kernel"]["interfaces"].as_array().with_context(|| format!("{}", status["kernel"]))?;
    let found = interfaces.iter().find(|shown| shown["name"] == interface).context("not in status")?;
    Ok(found["mode"].as_str().unwrap_or("").to_owned())
}

// K1
#[test]
fn status_and_metrics_name_the_mode_of_each_interface() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for wanted in ["native", "generic"] {
        let gateway = Gateway::start(&rig.net, &rig.config(&format!("mode = \"{wanted}\"")))?;
        for interface in ["c1", "atk"] {
            assert_eq!(mode(&gateway, interface)?, wanted);
            assert!(has_program(&rig.net, interface)?);
            let labels = [("interface", interface), ("mode", wanted)];
            assert_eq!(gateway.metrics()?.sum("kernel_mode", &labels), 1.0);
        }
        assert!(!has_program(&rig.net, "b1")?);
        assert!(gateway.cli(&["status"])?.stdout.contains(wanted));
        rig.serves(&gateway)?;
        drop(gateway);
        eventually("nothing is attached", || Ok(!has_program(&rig.net, "c1")?))?;
    }
    Ok(())
}

// K1
#[test]
fn native_mode_where_the_driver_has_none_is_a_start_error() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let config = rig.config("interfaces = [\"lo\"]\nmode = \"native\"\nrequired = true");
    let mut gateway = Gateway::prepare(&rig.net, &config, Options::default())?;
    let (status, said) = gateway.run_to_end()?;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("lo") && said.contains("native"), "{said}");
    Ok(())
}

// K1
#[test]
fn auto_falls_back_to_generic_and_says_why() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let gateway = Gateway::start(&rig.net, &rig.config("interfaces = [\"lo\", \"c1\"]\nmode = \"auto\""))?;
    assert_eq!((mode(&gateway, "lo")?, mode(&gateway, "c1")?), ("generic".into(), "native".into()));
    let said = gateway.stderr();
    assert!(said.iter().any(|line| line.contains("lo") && line.contains("generic")), "{said:?}");
    rig.serves(&gateway)
}

// K1
#[test]
fn an_interface_that_is_not_there_is_a_clear_start_error() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let config = rig.config("interfaces = [\"nowhere0\"]\nrequired = true");
    let mut gateway = Gateway::prepare(&rig.net, &config, Options::default())?;
    let (status, said) = gateway.run_to_end()?;
    assert!(status.code().is_some_and(|code| code != 0) && said.contains("nowhere0"), "{status}: {said}");
    Ok(())
}

#[test]
fn a_stop_leaves_nothing_attached_or_pinned() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut gateway = Gateway::start(&rig.net, &rig.config(""))?;
    assert!(has_program(&rig.net, "c1")?);
    gateway.stop()?;
    assert!(!has_program(&rig.net, "c1")? && !has_program(&rig.net, "atk")?);
    Ok(())
}

#[test]
fn what_kill_9_leaves_behind_is_cleaned_by_detach() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut gateway = Gateway::start(&rig.net, &rig.config(""))?;
    gateway.kill();
    let config = gateway.config().display().to_string();
    gateway.cli(&["kernel", "detach", &config])?.ok()?;
    assert!(!has_program(&rig.net, "c1")? && !has_program(&rig.net, "atk")?);
    assert!(!gateway.pin().exists(), "{:?}", std::fs::read_dir(gateway.pin())?.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn what_kill_9_leaves_behind_does_not_keep_the_next_start_from_serving() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let mut gateway = Gateway::start(&rig.net, &rig.config(""))?;
    for _ in 0..3 {
        gateway.kill();
        gateway.run()?;
        assert_eq!(mode(&gateway, "c1")?, "native");
        rig.serves(&gateway)?;
    }
    gateway.stop()?;
    assert!(!has_program(&rig.net, "c1")?);
    Ok(())
}

#[test]
fn without_privileges_it_serves_and_says_so_once() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let options = Options { capabilities: Some(NO_BPF), ..Options::default() };
    let gateway = Gateway::start_with(&rig.net, &rig.config("mode = \"auto\""), options)?;
    rig.serves(&gateway)?;
    assert!(!has_program(&rig.net, "c1")?);
    let said: Vec<String> = gateway.stderr();
    let warnings: Vec<&String> = said.iter().filter(|line| line.to_lowercase().contains("kernel")).collect();
    let warned = warnings.iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(warned, 1, "{said:?}");
    assert!(gateway.cli(&["status"])?.stdout.contains("off"));
    Ok(())
}

#[test]
fn without_privileges_and_required_it_does_not_start() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let options = Options { capabilities: Some(NO_BPF), ..Options::default() };
    let mut gateway = Gateway::prepare(&rig.net, &rig.config("mode = \"auto\"\nrequired = true"), options)?;
    let (status, said) = gateway.run_to_end()?;
    assert_eq!(status.code(), Some(3), "{said}");
    Ok(())
}

#[test]
fn turned_off_it_attaches_nothing() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let gateway = Gateway::start(&rig.net, &rig.config("mode = \"off\"\nsteer = \"off\""))?;
    rig.serves(&gateway)?;
    assert!(!has_program(&rig.net, "c1")?);
    Ok(())
}
