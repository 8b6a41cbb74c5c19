//! A client's record: its id, last message u64, since u64, endpoint, address, metadata, then its groups; each text behind its
//! length as u32, big endian. The script that writes changes knows this form, too.

use std::sync::Arc;

use bytes::Buf;
use gobroke_core::{
    ClientInfo, Metadata, Name,
    cluster::{ClusterError, InstanceId},
};
use uuid::Uuid;

/// Lays a record.
pub(super) fn write(info: &ClientInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(info.id.as_uuid().as_bytes());
    out.extend_from_slice(&info.last_message.to_be_bytes());
    out.extend_from_slice(&info.connected_at.to_be_bytes());
    put(&mut out, info.endpoint.as_bytes());
    put(
        &mut out,
        info.remote
            .map(|remote| remote.to_string())
            .unwrap_or_default()
            .as_bytes(),
    );
    put(&mut out, &metadata(&info.metadata));
    for group in &info.groups {
        put(&mut out, group.as_bytes());
    }
    out
}

/// Metadata as it stands in a record: JSON, or nothing where there is none.
pub(super) fn metadata(metadata: &Metadata) -> Vec<u8> {
    if metadata.is_empty() {
        return Vec::new();
    }
    // A map of strings to JSON values always has a JSON form.
    serde_json::to_vec(metadata).unwrap_or_default()
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
}

/// Reads records, and lets those that are alike share what they have.
#[derive(Default)]
pub(super) struct Reader {
    no_metadata: Arc<Metadata>,
    /// The last one read.
    endpoint: Option<Name>,
}

impl Reader {
    /// Reads a client's record.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(
        &mut self,
        at: &InstanceId,
        record: &[u8],
    ) -> Result<ClientInfo, ClusterError> {
        self.info(&at.name, record).ok_or_else(|| {
            let begins = record[..record.len().min(16)].escape_ascii();
            ClusterError::Refused(format!(
                "the record of a client on {at} cannot be read; it begins with \"{begins}\""
            ))
        })
    }

    fn info(&mut self, instance: &Name, mut record: &[u8]) -> Option<ClientInfo> {
        let id = Uuid::from_slice(record.split_off(..16)?).ok()?.into();
        let last_message = record.try_get_u64().ok()?;
        let connected_at = record.try_get_u64().ok()?;
        let endpoint = text(&mut record)?;
        let remote = text(&mut record)?;
        let metadata = take(&mut record)?;
        let metadata = match metadata.is_empty() {
            true => self.no_metadata.clone(),
            false => Arc::new(serde_json::from_slice(metadata).ok()?),
        };
        let mut groups = Vec::new();
        while record.has_remaining() {
            groups.push(text(&mut record)?.into());
        }
        Some(ClientInfo {
            id,
            instance: instance.clone(),
            endpoint: self.endpoint(endpoint),
            remote: remote.parse().ok(),
            connected_at,
            last_message,
            metadata,
            groups,
        })
    }

    fn endpoint(&mut self, name: &str) -> Name {
        match &self.endpoint {
            Some(known) if **known == *name => known.clone(),
            _ => self.endpoint.insert(name.into()).clone(),
        }
    }
}

fn take<'a>(record: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = record.try_get_u32().ok()? as usize;
    record.split_off(..length)
}

fn text<'a>(record: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take(record)?).ok()
}
