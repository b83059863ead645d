//! Limits that follow the health of what they protect, and the host's. R4, idea 4

use super::*;

// R4
#[test]
fn a_dynamic_limit_falls_with_the_health_of_its_upstream_and_comes_back_with_it() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.protect]\nmode = \"dynamic\"\nrate = { from = \"20/s\", to = \"2000/s\" }\ntarget = { p99 = \"1s\" }\nheaders = []",
        "limit = \"protect\"",
    )?;
    let over = std::sync::atomic::AtomicBool::new(false);
    let rate = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("limit_rate", &[("limit", "protect")])) };
    let shed = || -> Result<f64> {
        let denied = [("limit", "protect"), ("decision", "deny")];
        Ok(rig.gateway.metrics()?.sum("limit_decisions_total", &denied))
    };
    let wait = |what: &str, seconds: u64, so: &dyn Fn(f64) -> bool| -> Result<()> {
        within(Duration::from_secs(seconds), what, || Ok(so(rate()?).then_some(())))
    };
    std::thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok(mut client) = rig.client() else { continue };
                    while !over.load(std::sync::atomic::Ordering::Relaxed) && client.get("/").is_ok() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        let told = (|| -> Result<()> {
            assert_eq!(rate()?, 2000.0);
            rig.backends[0].slow(1500)?;
            wait("it falls by half", 20, &|rate| rate <= 1000.0)?;
            wait("it falls to the floor", 40, &|rate| rate <= 25.0)?;
            rig.backends[0].slow(0)?;
            wait("it comes back", 60, &|rate| rate >= 1000.0)?;
            assert!(shed()? > 0.0, "some were refused");
            Ok(())
        })();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        told
    })
}

// R4
#[test]
fn under_pressure_the_kernels_limits_are_lowered_and_raised_again() -> Result<()> {
    lab_test!();
    let rig = rig("[kernel]\nadapt = { cpu = \"1%\", from = \"50%\" }\nlimit = { new = \"1000/s\" }\n", "")?;
    let factor = || -> Result<f64> { Ok(rig.gateway.metrics()?.sum("kernel_load_factor", &[])) };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let fell =
            within(Duration::from_secs(20), "it falls to its floor", || Ok((factor()? <= 0.5).then_some(())));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        fell
    })?;
    let app = rig.backends[0].addr.to_string();
    rig.gateway.write(&config(&app, "[kernel]\nlimit = { new = \"1000/s\" }\n", ""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    eventually("it is whole again", || Ok(factor()? == 1.0))
}
