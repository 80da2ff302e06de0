//! A STUN server: tells everybody where they come from.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::{
    Message, MessageClass, MessageDecoder, MessageEncoder,
    rfc5389::{Attribute, attributes::XorMappedAddress, methods::BINDING},
};

/// The response to a binding request; `None` to anything else.
pub(crate) fn respond(from: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = MessageDecoder::<Attribute>::new();
    let request = decoder.decode_from_bytes(request).ok()?.ok()?;
    if request.class() != MessageClass::Request || request.method() != BINDING {
        return None;
    }
    let id = request.transaction_id();
    let mut response = Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, id);
    response.add_attribute(XorMappedAddress::new(from));
    MessageEncoder::new().encode_into_bytes(response).ok()
}
