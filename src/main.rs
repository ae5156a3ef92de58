//! The program.

fn main() -> std::process::ExitCode {
    toolzz_operator::cli::main()
}
