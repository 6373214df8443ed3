//! From the kernel's `TCP_INFO` to the evidence that a judgement needs.

use crate::liveness::{Evidence, PollMask, TcpState};
use crate::sys::tcp::{TcpInfo, TickClock};

/// Looks at a socket. `mask` is the last that its poll gave.
///
/// # Errors
///
/// Those of `getsockopt(2)`.
#[cfg(feature = "tracker")]
pub(crate) fn inspect(
    socket: std::os::fd::BorrowedFd<'_>,
    mask: PollMask,
    clock: TickClock,
) -> std::io::Result<Evidence> {
    let info = crate::sys::tcp::info(socket)?;
    Ok(evidence_of(&info, mask, clock))
}

/// What a look means, read just now.
pub(crate) fn evidence_of(info: &TcpInfo, mask: PollMask, clock: TickClock) -> Evidence {
    let present = clock.now();
    let tcp_state = TcpState::from_kernel(info.tcpi_state);
    // The kernel counts a FIN as one byte; it has come in these states. In CLOSE it may have: a byte too
    // many is not told from a FIN here, and the count is left as it is.
    let fin =
        matches!(tcp_state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait);
    Evidence {
        mask,
        so_error: None,
        tcp_state,
        retransmits: info.tcpi_retransmits,
        probes: info.tcpi_probes,
        backoff: info.tcpi_backoff,
        unacked: info.tcpi_unacked,
        notsent: info.tcpi_notsent_bytes,
        rtt_us: info.tcpi_rtt,
        last_data_ms: info.tcpi_last_data_recv,
        last_ack_ms: info.tcpi_last_ack_recv,
        received: info.tcpi_bytes_received.saturating_sub(u64::from(fin)),
        last_data: clock.latest(present, info.tcpi_last_data_recv),
        last_ack: clock.latest(present, info.tcpi_last_ack_recv),
    }
}
