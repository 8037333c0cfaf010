#!/usr/bin/python3
"""A client of the store in another language, from the .proto files alone: protoc makes the messages, and what ttrpc adds is below.

    store-client.py SOCKET pull REFERENCE        fetches an image over plain HTTP; prints its progress and its root's chain id
    store-client.py SOCKET import PATH NAME      takes an archive through the connection
    store-client.py SOCKET inspect IMAGE         prints its name, configuration and chain id
    store-client.py SOCKET root IMAGE KEY        prepares a snapshot of its root and prints the mounts
    store-client.py SOCKET cat DIGEST            writes a blob to standard output, and compares it with its digest
    store-client.py SOCKET put REFERENCE         stores standard input as a blob, and prints its digest
    store-client.py SOCKET keep LEASE DIGEST     makes a lease that keeps a blob, and prints what it keeps
    store-client.py SOCKET layer KEY             makes a layer of a snapshot's changes, and prints its digest and size
    store-client.py SOCKET names                 prints the names of all images

On the wire, a message is a header and a body. The header has ten bytes: the body's length (4), the stream (4, odd numbers), a type
(1: request 1, response 2, data 3) and flags (1: 1 the last of its side, 2 more follow, 4 no body).
"""

import hashlib
import importlib
import os
import socket
import struct
import subprocess
import sys
import tempfile

from google.protobuf import empty_pb2

REQUEST, RESPONSE, DATA = 1, 2, 3
LAST, MORE, EMPTY = 1, 2, 4

# The messages that ttrpc itself has round those of a service.
TTRPC = """
syntax = "proto3";
package ttrpc;
message KeyValue { string key = 1; string value = 2; }
message Request { string service = 1; string method = 2; bytes payload = 3; int64 timeout_nano = 4; repeated KeyValue metadata = 5; }
message Status { int32 code = 1; string message = 2; }
message Response { Status status = 1; bytes payload = 2; }
"""


def compiled(folder):
    """The modules that protoc makes of our definitions, and of ttrpc's."""
    protos = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "proto", "proto")
    with open(os.path.join(folder, "ttrpc.proto"), "w") as file:
        file.write(TTRPC)
    names = ["store", "content", "images", "snapshots", "leases", "diff", "types"]
    files = [os.path.join(protos, name + ".proto") for name in names] + [os.path.join(folder, "ttrpc.proto")]
    subprocess.run(["protoc", "-I", protos, "-I", folder, "--python_out", folder] + files, check=True)
    sys.path.insert(0, folder)
    return [importlib.import_module(name + "_pb2") for name in names + ["ttrpc"]]


class Refused(Exception):
    pass


class Client:
    def __init__(self, path):
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.connect(path)
        self.stream = -1

    def send(self, kind, flags, body):
        self.peer.sendall(struct.pack(">IIBB", len(body), self.stream, kind, flags) + body)

    def exactly(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self.peer.recv(length - len(data))
            if not piece:
                raise Refused("the store hung up")
            data += piece
        return bytes(data)

    def receive(self):
        length, _, kind, flags = struct.unpack(">IIBB", self.exactly(10))
        return kind, flags, self.exactly(length)

    def begin(self, service, method, payload, flags):
        self.stream += 2
        request = ttrpc.Request(service=service, method=method, payload=payload)
        request.metadata.add(key="containerd-namespace-ttrpc", value="default")
        self.send(REQUEST, flags, request.SerializeToString())

    @staticmethod
    def payload(body):
        response = ttrpc.Response.FromString(body)
        if response.status.code:
            raise Refused(f"{response.status.message} (code {response.status.code})")
        return response.payload

    def call(self, service, method, request, answer):
        """One request, one answer."""
        self.begin(service, method, request.SerializeToString(), 0)
        _, _, body = self.receive()
        return answer.FromString(self.payload(body))

    def follow(self, service, method, request, answer):
        """One request, a stream of answers."""
        self.begin(service, method, request.SerializeToString(), LAST)
        yield from self.answers(answer)

    def answers(self, answer):
        while True:
            kind, flags, body = self.receive()
            if kind == RESPONSE:
                self.payload(body)
                return
            if flags & EMPTY:
                return
            yield answer.FromString(body)

    def talk(self, service, method):
        """A stream on both sides: its messages are sent with `say`."""
        self.begin(service, method, b"", MORE | EMPTY)

    def say(self, message):
        self.send(DATA, 0, message.SerializeToString())


def result_of(progress):
    """Prints a call's progress; gives how it ended."""
    result = None
    for message in progress:
        for item in message.items:
            phase = store.Item.Phase.Name(item.phase).lower()
            print(f"{item.kind} {item.id[:19]} {phase} {item.offset}/{item.total}", file=sys.stderr)
        if message.HasField("result"):
            result = message.result
    return result


def pull(client, reference):
    request = store.PullRequest(reference=reference)
    request.registry.plain_http = True
    result = result_of(client.follow("tare.store.v1.Store", "Pull", request, store.Progress))
    print(result.images[0].name, result.images[0].chain_id)


def take(client, path, name):
    """Import: never more than four megabytes ahead of what the store has taken."""
    client.talk("tare.store.v1.Store", "Import")
    client.say(store.ImportRequest(options=store.ImportOptions(name=name)))
    answers = client.answers(store.Progress)
    sent = received = 0
    result = None
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            client.say(store.ImportRequest(data=piece))
            sent += len(piece)
            while sent - received > 3 << 20:
                received = max(received, next(answers).received)
    client.say(store.ImportRequest(end=True))
    result = result_of(answers)
    for image in result.images:
        print(image.name, image.chain_id)


def inspect(client, image):
    request = store.InspectRequest(image=image)
    found = client.call("tare.store.v1.Store", "Inspect", request, store.InspectResponse)
    digest = "sha256:" + hashlib.sha256(found.config_json).hexdigest()
    assert digest == found.config.digest, "the configuration is not what its digest says"
    print(found.name, found.config.digest, found.chain_id)
    return found


def root(client, image, key):
    found = inspect(client, image)
    request = snapshots.PrepareSnapshotRequest(key=key, parent=found.chain_id)
    answer = snapshots.PrepareSnapshotResponse
    for mount in client.call("containerd.services.snapshots.v1.Snapshots", "Prepare", request, answer).mounts:
        print("mount", mount.type, mount.source, ",".join(mount.options))


def cat(client, digest):
    request = content.ReadContentRequest(digest=digest)
    answers = client.follow("containerd.services.content.v1.Content", "Read", request, content.ReadContentResponse)
    hashed = hashlib.new(digest.split(":")[0])
    for part in answers:
        hashed.update(part.data)
        sys.stdout.buffer.write(part.data)
    assert hashed.hexdigest() == digest.split(":")[1], "the blob is not what its digest says"


def put(client, reference):
    client.talk("containerd.services.content.v1.Content", "Write")
    answers = client.answers(content.WriteContentResponse)
    client.say(content.WriteContentRequest(action=content.STAT, ref=reference))
    offset = next(answers).offset
    while piece := sys.stdin.buffer.read(1 << 20):
        client.say(content.WriteContentRequest(action=content.WRITE, offset=offset, data=piece))
        offset = next(answers).offset
    client.say(content.WriteContentRequest(action=content.COMMIT, offset=offset, total=offset))
    print(next(answers).digest)


def keep(client, lease, digest):
    service = "containerd.services.leases.v1.Leases"
    client.call(service, "Create", leases.CreateRequest(id=lease), leases.CreateResponse)
    kept = leases.Resource(id=digest, type="content")
    client.call(service, "AddResource", leases.AddResourceRequest(id=lease, resource=kept), empty_pb2.Empty)
    request = leases.ListResourcesRequest(id=lease)
    for resource in client.call(service, "ListResources", request, leases.ListResourcesResponse).resources:
        print(resource.type, resource.id)


def layer(client, key):
    request = snapshots.MountsRequest(key=key)
    mounts = client.call("containerd.services.snapshots.v1.Snapshots", "Mounts", request, snapshots.MountsResponse).mounts
    request = diff.DiffRequest(right=mounts, media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    made = client.call("containerd.services.diff.v1.Diff", "Diff", request, diff.DiffResponse).diff
    print(made.digest, made.size)


def names(client):
    request = images.ListImagesRequest()
    for image in client.call("containerd.services.images.v1.Images", "List", request, images.ListImagesResponse).images:
        print(image.name)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    commands = {"pull": pull, "import": take, "inspect": inspect, "root": root, "cat": cat, "put": put, "keep": keep, "layer": layer}
    commands["names"] = names
    with tempfile.TemporaryDirectory() as made:
        store, content, images, snapshots, leases, diff, types, ttrpc = compiled(made)
        try:
            commands[sys.argv[2]](Client(sys.argv[1]), *sys.argv[3:])
        except Refused as error:
            sys.exit(f"store-client.py: {error}")
