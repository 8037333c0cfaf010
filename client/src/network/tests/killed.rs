//! What is given back after a command that was killed or failed, and while somebody stays.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn an_address_is_free_again_though_somebody_stays_in_the_namespace() {
    in_world(async |client| {
        let mut owner = started(&client, "owner", |_| {}).await;
        let mut guest = started(&client, "guest", in_network("container:owner")).await;
        let stays = inside(&client, &guest, || std::fs::File::open("/proc/thread-self/ns/net"));
        detach(&client, &mut owner).await.unwrap();
        // The namespace is held here, as by a process; its device is gone at once.
        let look = std::thread::scope(|scope| {
            let thread = || {
                nix::sched::setns(&stays, CloneFlags::CLONE_NEWNET).unwrap();
                output("ip", &["-o", "link"])
            };
            std::thread::Builder::new().spawn_scoped(scope, thread).unwrap().join().unwrap()
        });
        assert!(!look.contains("eth0"), "{look}");
        detach(&client, &mut guest).await.unwrap();
        drop(stays);
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn what_a_killed_command_left_is_found_by_the_next() {
    in_world(async |client| {
        // Killed after everything was made, and its record removed.
        let gone = started(&client, "gone", |record| publish_at(record, "80/tcp", "", "8080")).await;
        records::free_name(&client, "gone", &gone.id).unwrap();
        records::lock(&client, &gone.id).unwrap().remove().unwrap();
        // Killed when the namespace was just made.
        namespace::make(&client.paths.netns(&"e".repeat(64))).unwrap();
        // Killed between its journal and the plugins: the record is there, and says that it does not run.
        let mut half = made(&client, "half", |_| {}).await.unwrap();
        attach(&client, &mut half).await.unwrap();
        std::fs::remove_file(
            directory(&client.paths).join("addresses/bridge").join(&half.networks["bridge"].ip_address),
        )
        .unwrap();
        assert!(attached(&client, &half.id));
        let mut next = started(&client, "next", |record| publish_at(record, "80/tcp", "", "8080")).await;
        attach(&client, &mut half).await.unwrap();
        detach(&client, &mut half).await.unwrap();
        detach(&client, &mut next).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn nobody_starts_a_plugin_while_one_of_a_killed_caller_runs() {
    bare_world(async |client| {
        let id = "a".repeat(64);
        let busy = journal::Busy::take(&client.paths, &id).unwrap();
        // A plugin that leaves a process behind, which goes on until the fifo has had a writer.
        let script = client.paths.run.join("bridge");
        let fifo = client.paths.run.join("fifo");
        std::fs::write(&script, format!("#!/bin/sh\ncat {} >/dev/null &\n", fifo.display())).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        crate::testing::fifo(&fifo);
        let plugins = cni::Plugins::at(client.paths.run.to_str().unwrap()).holding(busy);
        let target = cni::Target { container: &id, namespace: None, interface: "eth0" };
        plugins.del(&serde_json::json!({"type": "bridge"}), target).await.unwrap();
        // Its caller is killed: nothing is dropped, and its descriptors are closed.
        let file = directory(&client.paths).join(format!("{id}.busy"));
        let descriptors = std::fs::read_dir("/proc/thread-self/fd").unwrap().filter_map(|it| {
            let it = it.unwrap();
            (std::fs::read_link(it.path()).ok()? == file)
                .then(|| it.file_name().to_str()?.parse::<i32>().ok())
                .flatten()
        });
        let descriptors: Vec<i32> = descriptors.collect();
        std::mem::forget(plugins);
        descriptors.into_iter().for_each(|it| nix::unistd::close(it).unwrap());
        let again = || {
            let file = std::fs::File::open(&file).unwrap();
            nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map(drop).map_err(|it| it.1)
        };
        assert_eq!(again(), Err(nix::errno::Errno::EWOULDBLOCK));
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        drop(journal::Busy::take(&client.paths, &id).unwrap());
        assert!(!file.try_exists().unwrap());
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    in_world(async |client| {
        let program = TcpListener::bind("0.0.0.0:8080").unwrap();
        let mut web = made(&client, "web", |record| publish_at(record, "80/tcp", "", "8080")).await.unwrap();
        let error = attach(&client, &mut web).await.unwrap_err();
        assert!(error.message.contains("in use by another program"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
        drop(program);
        // A network without room: 10.9.0.0/29 has five addresses beside the gateway's.
        create(&client, &net("tiny", "10.9.0.0/29")).await.unwrap();
        let mut all = Vec::new();
        for number in 0..5 {
            all.push(started(&client, &format!("c{number}"), in_network("tiny")).await);
        }
        let mut more = made(&client, "more", in_network("tiny")).await.unwrap();
        let error = attach(&client, &mut more).await.unwrap_err();
        assert!(error.message.contains("all 5 addresses of the network tiny are taken"), "{error}");
        assert!(!attached(&client, &more.id) && more.networks["tiny"].ip_address.is_empty());
        detach(&client, &mut all[0]).await.unwrap();
        attach(&client, &mut more).await.unwrap();
        for record in all.iter_mut().chain([&mut more]) {
            detach(&client, record).await.unwrap();
        }
        assert_eq!(prune(&client, &|_| true).await.unwrap(), ["tiny"]);
        assert_eq!(left(&client), Vec::<String>::new());
    });
}
