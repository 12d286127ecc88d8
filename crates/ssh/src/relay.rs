//! One channel of a caller, and the one of the machine that it goes on in.

use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client, server};

/// Passes everything both ways until either side closes. Neither direction waits for the other.
pub(crate) async fn relay(near: Channel<Msg>, far: Channel<client::Msg>, handle: Handle) {
    let id = near.id();
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.split();
    tokio::select! {
        () = up(near_in, &far_out) => {}
        () = down(far_in, &near_out, &handle) => {}
    }
    // Closed already is as good.
    let _ = far_out.close().await;
    let _ = handle.close(id).await;
}

/// Says why there is no machine, where the caller's program shows it.
pub(crate) async fn refuse(near: Channel<Msg>, text: String) {
    let _ = near.extended_data_bytes(1, text.into_bytes()).await;
    let _ = near.exit_status(255).await;
    let _ = near.eof().await;
    let _ = near.close().await;
}

/// What the caller says. Ends when it closes, or the machine takes no more.
async fn up(mut from: ChannelReadHalf, to: &ChannelWriteHalf<client::Msg>) {
    while let Some(said) = from.wait().await {
        let passed = match said {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::ExtendedData { data, ext } => to.extended_data_bytes(ext, data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
                ..
            } => {
                // It was answered at once; a machine without terminals runs the command without one.
                to.request_pty(
                    false,
                    &term,
                    col_width,
                    row_height,
                    pix_width,
                    pix_height,
                    &terminal_modes,
                )
                .await
            }
            ChannelMsg::SetEnv {
                variable_name,
                variable_value,
                ..
            } => to.set_env(false, variable_name, variable_value).await,
            ChannelMsg::RequestShell { .. } => to.request_shell(true).await,
            ChannelMsg::Exec { command, .. } => to.exec(true, command).await,
            ChannelMsg::RequestSubsystem { name, .. } => to.request_subsystem(true, name).await,
            ChannelMsg::Signal { signal } => to.signal(signal).await,
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                pix_width,
                pix_height,
            } => {
                to.window_change(col_width, row_height, pix_width, pix_height)
                    .await
            }
            ChannelMsg::Close => return,
            // Agents and X11 are refused by the session; windows are minded by the library.
            _ => Ok(()),
        };
        if passed.is_err() {
            return;
        }
    }
}

/// What the machine says. Ends when it closes, or the caller takes no more.
async fn down(mut from: ChannelReadHalf, to: &ChannelWriteHalf<server::Msg>, handle: &Handle) {
    let gone = |_: ()| russh::Error::SendError;
    while let Some(said) = from.wait().await {
        let passed = match said {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::ExtendedData { data, ext } => to.extended_data_bytes(ext, data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::ExitStatus { exit_status } => to.exit_status(exit_status).await,
            ChannelMsg::ExitSignal {
                signal_name,
                core_dumped,
                error_message,
                lang_tag,
            } => {
                let told =
                    handle.exit_signal_request(to.id(), signal_name, core_dumped, error_message, lang_tag);
                told.await.map_err(gone)
            }
            ChannelMsg::Success => handle.channel_success(to.id()).await.map_err(gone),
            ChannelMsg::Failure => handle.channel_failure(to.id()).await.map_err(gone),
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if passed.is_err() {
            return;
        }
    }
}
