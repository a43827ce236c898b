//! The handshake command `hello` (MongoDB wire protocol, `OP_MSG`), to classify why the driver cannot connect.

use bson::doc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{api::Reason, backends::Fault};

const OP_REPLY: i32 = 1;
const OP_MSG: i32 = 2013;

/// Sends `hello`, and reads the header of the response.
///
/// # Errors
/// Of the connection, or `ProtocolError` for a response of another protocol.
pub(super) async fn hello(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Result<(), Fault> {
    let command = doc! { "hello": 1, "$db": "admin" };
    let document = command.to_vec().map_err(|error| Fault::new(Reason::ProtocolError, error.to_string()))?;
    let length = i32::try_from(16 + 4 + 1 + document.len()).unwrap_or(i32::MAX);
    let mut message = Vec::new();
    for number in [length, 1, 0, OP_MSG, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&document);
    let mut header = [0; 16];
    let response = async {
        stream.write_all(&message).await?;
        stream.flush().await?;
        stream.read_exact(&mut header).await
    };
    response.await.map_err(|error| Fault::from_io(&error))?;
    let opcode = i32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if [OP_REPLY, OP_MSG].contains(&opcode) { Ok(()) } else { Err(not_mongodb()) }
}

pub(super) fn not_mongodb() -> Fault {
    Fault::new(Reason::ProtocolError, "unexpected response: the server does not speak the MongoDB protocol")
}
