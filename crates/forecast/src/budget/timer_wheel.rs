//! Lateness of the kernel's timers.
//!
//! The timer wheel (kernel/time/timer.c, calc_index) keeps a timer of more than 63 ticks in steps of 8 ticks, of more
//! than 504 in steps of 64, and so on, and rounds up: a retransmission timer is late by up to an eighth of its delay.

/// Ticks per second of the guest's kernel (CONFIG_HZ).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickRate {
    /// Known tick rate.
    PerSecond(u32),
    /// Unknown tick rate: the worst of the usual rates counts.
    Unknown,
}

/// Tick rates with which distributions build kernels.
const IN_USE: [u32; 4] = [100, 250, 300, 1000];

/// Delay that a machine without overload adds before the timer's work is done; counted once for each timer.
const SERVICE_SECONDS: f64 = 0.01;

impl TickRate {
    /// Maximum lateness of a timer with this delay.
    pub(super) fn lateness_seconds(self, delay_seconds: f64) -> f64 {
        let wheel = match self {
            Self::PerSecond(hz) => step_seconds(delay_seconds, hz),
            Self::Unknown => IN_USE.iter().map(|&hz| step_seconds(delay_seconds, hz)).fold(0.0, f64::max),
        };
        wheel + SERVICE_SECONDS
    }
}

/// Resolution at which a timer with this delay is kept.
fn step_seconds(delay_seconds: f64, hz: u32) -> f64 {
    let tick = 1.0 / f64::from(hz.max(1));
    let mut step = 1.0;
    // Nine levels (LVL_DEPTH); what is beyond the last waits there.
    for _ in 1..9 {
        if delay_seconds / tick < 63.0 * step {
            break;
        }
        step *= 8.0;
    }
    step * tick
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_comment_in_the_kernel() {
        // kernel/time/timer.c: HZ 250, level 1 from 252 ms in steps of 32 ms, level 2 from 2016 ms in 256 ms.
        for (delay, step) in
            [(0.2, 0.004), (0.251, 0.004), (0.253, 0.032), (2.0, 0.032), (2.1, 0.256), (17.0, 2.048)]
        {
            assert!((step_seconds(delay, 250) - step).abs() < 1e-9, "{delay}");
        }
    }

    #[test]
    fn never_later_than_an_eighth_and_the_service() {
        for hz in IN_USE {
            let tick = 1.0 / f64::from(hz);
            for delay in [0.2, 0.4, 1.6, 6.4, 25.6, 102.4, 120.0] {
                let late = TickRate::PerSecond(hz).lateness_seconds(delay);
                assert!(late <= delay * 8.0 / 63.0 + tick + SERVICE_SECONDS + 1e-9, "{hz} {delay} {late}");
                assert!(late <= TickRate::Unknown.lateness_seconds(delay));
            }
        }
    }
}
