//! The messages of criu's service protocol, as much of them as a runtime uses.
//!
//! On the wire (`criu swrk FD`, a SOCK_SEQPACKET socket, one packet one message, protocol buffers version 2; the numbers
//! are those of criu's `images/rpc.proto`, which only ever adds to them):
//!
//! ```text
//!   tare -> criu   Request { type: Dump | Restore | PreDump | FeatureCheck | Version, opts }
//!   criu -> tare   Response { type: Notify, notify { script, pid } } (+ one fd for orphan-pts-master)    any number
//!   tare -> criu   Request { type: Notify, notify_success }                                              one to each
//!   criu -> tare   Response { type: the request's, success, cr_errno, cr_errmsg, restore { pid }, ... }
//! ```
//!
//! The codec is prost's: the messages are declared here by attribute, so there is neither generated code nor a compiler
//! for it to keep, no reflection data in the binary, and no second hand-made parser of bytes from another program.

#![allow(missing_docs)] // The fields are criu's own, named and documented in its rpc.proto.

use prost::{Enumeration, Message};

/// What is asked, or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum RequestType {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    Check = 3,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// How criu treats the cgroups that it finds the processes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    Ignore = 0,
    None = 1,
    Props = 2,
    Soft = 3,
    Full = 4,
    Strict = 5,
    Default = 6,
}

/// What goes to criu.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(enumeration = "RequestType", required, tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, boxed, tag = "2")]
    pub opts: Option<Box<Options>>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub keep_open: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

/// What comes from criu.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(enumeration = "RequestType", required, tag = "1")]
    pub r#type: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    pub cr_errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    #[prost(string, optional, tag = "9")]
    pub cr_errmsg: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub version: Option<Version>,
}

/// The options of a dump or a restore. A path or fd in it is one of the requester: criu opens `/proc/<pid>/fd/<n>`.
#[derive(Clone, PartialEq, Message)]
pub struct Options {
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub ps: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub ext_mnt: Vec<ExternalMount>,
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = "25")]
    pub cg_root: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    #[prost(string, repeated, tag = "43")]
    pub cgroup_dump_controller: Vec<String>,
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(int32, optional, tag = "49")]
    pub status_fd: Option<i32>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// Where the memory pages go to instead of the image directory.
#[derive(Clone, PartialEq, Message)]
pub struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// A mount criu must not look into: on a dump `key` is its place and `val` its name, on a restore `key` is the name and
/// `val` what to bind there.
#[derive(Clone, PartialEq, Message)]
pub struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub val: String,
}

/// A namespace, not one of the image, that the restored processes join.
#[derive(Clone, PartialEq, Message)]
pub struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub ns: String,
    #[prost(string, required, tag = "2")]
    pub ns_file: String,
}

/// A descriptor of criu's own that stands for what the image calls `key`.
#[derive(Clone, PartialEq, Message)]
pub struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// The cgroup a controller's tree is restored below.
#[derive(Clone, PartialEq, Message)]
pub struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub ctrl: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// Asked for, and told, feature by feature.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Features {
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// The outcome of a restore.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Restored {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// A point that criu has reached and waits at.
#[derive(Clone, PartialEq, Message)]
pub struct Notify {
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// criu's version.
#[derive(Clone, PartialEq, Message)]
pub struct Version {
    #[prost(int32, required, tag = "1")]
    pub major_number: i32,
    #[prost(int32, required, tag = "2")]
    pub minor_number: i32,
    #[prost(string, optional, tag = "3")]
    pub gitid: Option<String>,
    #[prost(int32, optional, tag = "4")]
    pub sublevel: Option<i32>,
}

impl Version {
    /// The version as one number that compares: 4.1.1 is 40101. A build from git counts as the next minor version,
    /// because it has what that will have.
    pub fn number(&self) -> i32 {
        match self.gitid {
            Some(_) => self.major_number * 10_000 + (self.minor_number + 1) * 100,
            None => self.major_number * 10_000 + self.minor_number * 100 + self.sublevel.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_that_the_protocol_says() {
        let request = Request { r#type: RequestType::Notify as i32, notify_success: Some(true), ..Request::default() };
        // Field 1 varint 6, field 3 varint 1.
        assert_eq!(request.encode_to_vec(), [0x08, 6, 0x18, 1]);

        let request = Request {
            r#type: RequestType::Restore as i32,
            opts: Some(Box::new(Options {
                images_dir_fd: 5,
                inherit_fd: vec![InheritFd { key: "p".into(), fd: 1 }],
                ..Options::default()
            })),
            ..Request::default()
        };
        // Field 2 is a message of 9 bytes; in it field 1 varint 5, and field 27 a message of 5 bytes.
        assert_eq!(request.encode_to_vec(), [0x08, 2, 0x12, 10, 0x08, 5, 0xda, 0x01, 5, 0x0a, 1, b'p', 0x10, 1]);
    }

    #[test]
    fn an_answer_may_have_fields_of_a_later_criu() {
        // type Dump, success, and an unknown field 99 of three bytes.
        let bytes = [0x08, 1, 0x10, 1, 0x9a, 0x06, 3, 1, 2, 3];
        let response = Response::decode(bytes.as_slice()).unwrap();
        assert!(response.success);
        assert_eq!(response.r#type, RequestType::Dump as i32);
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        assert!(Response::decode([0x08].as_slice()).is_err());
        assert!(Response::decode([0x2a, 200, 1].as_slice()).is_err());
    }

    #[test]
    fn versions_compare() {
        let release = |major_number, minor_number, sublevel| Version {
            major_number,
            minor_number,
            sublevel,
            ..Version::default()
        };
        assert_eq!(release(3, 17, Some(1)).number(), 31_701);
        assert_eq!(release(4, 1, None).number(), 40_100);
        let git = Version { gitid: Some("v3.14-1-g0".into()), ..release(3, 14, None) };
        assert_eq!(git.number(), 31_500);
    }
}
