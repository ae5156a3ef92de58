//! The commands in the documentation: every block `sh`, as it stands there. One that cannot be run here is marked
//! `sh no-run`, and the comment before it says why.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use test_controlplane::tool;

use super::{
    docs::{Block, Page, ROOT, pages},
    support::*,
};

/// Pages about an installation, each list the life of one in a cluster where nothing is installed. Their first block
/// installs. All other pages are read in a room where everything is there.
const LIVES: [&[&str]; 3] = [
    &["README.md", "docs/uninstall.md"],
    &["charts/toolzz-operator/README.md", "docs/uninstall.md"],
    &["docs/install.md", "docs/upgrade.md", "docs/uninstall.md"],
];

/// To find nothing is an answer too, and so is what the check has against uninstalling.
const ANSWERS: &str = r#"
grep() { command grep "$@" || [ $? = 1 ]; }
toolzz-operator() { command toolzz-operator "$@" || [ "$1 $?" = "uninstall 1" ]; }
"#;

/// Somebody who types what the documentation says, in a clone of the repository.
struct Reader {
    namespace: String,
    clone: PathBuf,
    home: PathBuf,
    kubeconfig: PathBuf,
    /// Where the shell finds programs.
    path: String,
}

impl Reader {
    fn of(lab: &Lab) -> Self {
        let [clone, home, programs] = ["clone", "home", "bin"].map(|name| lab.directory.join(name));
        for folder in [&clone, &home, &programs] {
            fs::create_dir(folder).unwrap();
        }
        let folders = ["charts", "crds", "docs", "examples", "integrations"];
        let copied = Command::new("cp").arg("-r").args(folders).arg(&clone).current_dir(ROOT).status().unwrap();
        assert!(copied.success());
        fs::write(clone.join("token"), "not-a-token").unwrap();
        for name in ["kubectl", "helm"] {
            symlink(tool(name).unwrap(), programs.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_toolzz-operator"), programs.join("toolzz-operator")).unwrap();
        let kubeconfig = home.join("kubeconfig");
        fs::write(&kubeconfig, lab.kubectl(&["config", "view", "--raw", "--flatten"])).unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let reader = Self { namespace: lab.namespace.clone(), clone, home, kubeconfig, path };
        reader.types("kubectl config set-context --current --namespace=NAMESPACE").unwrap();
        reader
    }

    /// What a reader puts in place of the words in capitals.
    fn meant<'a>(&'a self, word: &'a str) -> &'a str {
        match word {
            "NAMESPACE" | "NAMESPACE_OF_THE_RESOURCE" => &self.namespace,
            "NAME" => "openai",
            "REASON" => "Created",
            "SECRET" => "toolzz-api-token",
            "FILE" => "token",
            "IMAGE" => "registry.example.com/toolzz-operator",
            "UUID-OF-THE-OWNER" => USER,
            "UUID-OF-THE-UNITY" => UNITY,
            "UUID-OF-THE-INTEGRATION" => "9a770001-0000-4000-8000-000000000001",
            other => other,
        }
    }

    fn filled(&self, text: &str) -> String {
        let between = |letter: char| !letter.is_ascii_alphanumeric() && !"_-".contains(letter);
        let filled = text.split_inclusive(between).flat_map(|piece| {
            let word = piece.trim_end_matches(between);
            [self.meant(word), &piece[word.len()..]]
        });
        filled.collect()
    }

    /// What was said; what was typed and said, if it failed.
    fn types(&self, text: &str) -> Result<String, String> {
        let text = self.filled(text);
        let output = Command::new("timeout")
            .args(["5m", "bash", "-euo", "pipefail", "-c", &format!("{ANSWERS}{text}")])
            .current_dir(&self.clone)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        if output.status.success() {
            return Ok(said.into_owned());
        }
        Err(format!("{}\n{text}{said}{complained}", output.status))
    }

    /// Installs the chart for the room, where the definitions are there already.
    fn installs(&self) {
        let install = "helm install toolzz-operator charts/toolzz-operator --set image.repository=IMAGE \
             --set token.existingSecret.name=toolzz-api-token --set crds.enabled=false \
             --set scope=namespaces --set 'namespaces={NAMESPACE}'";
        self.types(install).unwrap();
    }

    fn follows(&self, page: &Page, block: &Block) -> Result<(), String> {
        self.types(&block.text).map(drop).map_err(|error| format!("{}:{}: {error}", page.path.display(), block.line))
    }
}

fn is_about_an_installation(page: &Page) -> bool {
    let path = page.path.to_str().unwrap();
    LIVES.iter().any(|life| life.contains(&path))
}

fn commands(page: &Page) -> impl Iterator<Item = &Block> {
    page.blocks.iter().filter(|block| block.kind == "sh")
}

#[tokio::test]
async fn what_the_pages_say_about_resources_works() {
    let _turn = turn().await;
    let mut lab = Lab::empty("pages").await;
    let reader = Reader::of(&lab);
    let kinds = tool("prometheus-operator-crds").unwrap();
    let kind = |name: &str| format!("-f {}/monitoring.coreos.com_{name}.yaml", kinds.display());
    let kinds = kind("servicemonitors") + " " + &kind("prometheusrules");
    let ready = format!(
        "kubectl apply --server-side {kinds}
         kubectl wait --for=condition=Established --timeout=60s {kinds}
         kubectl apply -f examples"
    );
    reader.types(&ready).unwrap();
    reader.installs();
    lab.flags.push("--leader-elect".to_owned());
    lab.start_operator();
    lab.until_ready("openai").await;

    let (mut run, mut failed) = (0, Vec::new());
    for page in pages().iter().filter(|page| !is_about_an_installation(page)) {
        for block in commands(page) {
            run += 1;
            failed.extend(reader.follows(page, block).err());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(run >= 20, "{run}");
}

#[tokio::test]
async fn what_a_release_prints_works_when_it_is_pasted() {
    let mut lab = Lab::empty("notes").await;
    let reader = Reader::of(&lab);
    reader.installs();
    lab.start_operator();
    let notes = reader.types("helm get notes toolzz-operator").unwrap();
    // All at once, but for what waits for a pod.
    let commands = notes.split("\n\n").filter(|text| text.starts_with("kubectl ") && !text.contains("rollout"));
    let pasted = commands.collect::<Vec<_>>().join("\n");
    assert_eq!(pasted.lines().filter(|line| line.starts_with("kubectl ")).count(), 4, "{notes}");
    let said = reader.types(&pasted).unwrap();
    assert!(said.contains("toolzzcredential.toolzz.com.br/openai condition met"), "{said}");
}

#[tokio::test]
async fn what_the_pages_say_about_an_installation_works() {
    let _turn = turn().await;
    let mut lab = Lab::on(bare_plane().await, "life").await;
    lab.flags.push("--operator-namespace=toolzz-operator".to_owned());
    let reader = Reader::of(&lab);
    for life in LIVES {
        for page in life.iter().map(Page::read) {
            for block in commands(&page) {
                // What comes next needs what this did.
                reader.follows(&page, block).unwrap_or_else(|failed| panic!("{failed}"));
                // In place of the pod, which finds no node.
                if lab.operator.is_none() {
                    lab.start_operator();
                }
            }
        }
        lab.kill_operator();
    }
}
