use super::*;

fn config(more: &str) -> Config {
    let documented = include_str!("../../../../docs/waxwing.toml");
    let text = documented.replacen("[run]\n", &format!("[run]\n{more}\n"), 1);
    Config::parse(&text, "waxwing.toml", &|_| Err("none".to_owned())).unwrap()
}

#[test]
fn the_folders_of_all_files_that_the_configuration_names_are_read_and_few_are_written() {
    let mut config = config("folders = [\"/srv/spools\"]");
    config.audit = Some(crate::config::Audit { file: "/var/log/waxwing/audit.log".into(), rotate: 1 << 20 });
    let folders = Folders::of(&config, Path::new("waxwing.toml"));
    let written: Vec<&str> = folders.write.iter().filter_map(|path| path.to_str()).collect();
    assert_eq!(written, ["/srv/spools", "/var/lib/waxwing/store", "/var/log/waxwing", "/var/spool/waxwing"]);
    for read in [".", "/etc/waxwing", "/srv/spools"] {
        assert!(folders.read.contains(Path::new(read)), "{read}: {folders:?}");
    }
    config.kek = KekSources::new(vec!["/keys/a/kek".into(), "/keys/b/kek".into()]);
    let folders = Folders::of(&config, Path::new("/c/waxwing.toml"));
    for read in ["/c", "/keys/a", "/keys/b"] {
        assert!(folders.read.contains(Path::new(read)), "{read}: {folders:?}");
    }
}

#[test]
fn addresses_are_taken_once_and_free_ports_are_left_to_be_chosen() {
    let mut config = config("");
    config.metrics = Some(crate::config::Metrics { listen: "127.0.0.1:0".parse().unwrap() });
    let ports: Vec<u16> = addresses(&config).iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [2525, 2526]);
}

/// In a thread of its own: what is barred is barred for it alone.
#[test]
fn a24_what_the_configuration_does_not_name_cannot_be_opened_where_the_kernel_bars_it() {
    let place = tempfile::tempdir().unwrap();
    for folder in ["read", "write", "other"] {
        std::fs::create_dir(place.path().join(folder)).unwrap();
        std::fs::write(place.path().join(folder).join("file"), "x").unwrap();
    }
    let folders = Folders {
        read: [place.path().join("read"), place.path().join("missing")].into(),
        write: [place.path().join("write")].into(),
    };
    let root = place.path().to_owned();
    std::thread::spawn(move || {
        if restrict(&folders, false).unwrap() == RulesetStatus::NotEnforced {
            eprintln!("left out: this kernel has no Landlock");
            return;
        }
        let read = |folder: &str| std::fs::read(root.join(folder).join("file")).is_ok();
        let write = |folder: &str| std::fs::write(root.join(folder).join("new"), "y").is_ok();
        assert!(read("read") && read("write") && !read("other"));
        assert!(write("write") && !write("read") && !write("other"));
        let (from, to) = (root.join("write/new"), root.join("write/renamed"));
        std::fs::rename(from, &to).unwrap();
        std::fs::hard_link(&to, root.join("write/linked")).unwrap();
        std::fs::remove_file(&to).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("write/socket")).unwrap();
        assert!(std::process::Command::new("/bin/true").status().is_err(), "no program is run");
    })
    .join()
    .unwrap();
}
