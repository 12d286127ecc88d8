use super::counterparts::{has_foreign_std, has_program, output, recipe_cargo, there_is};

#[test]
fn the_buildlet_and_its_protocols_hold_on_a_big_endian_machine() {
    let packages = "rustc-web rust-web-src gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user-static";
    let all = has_foreign_std() && has_program("s390x-linux-gnu-gcc") && has_program("qemu-s390x-static");
    if !there_is("compiler for s390x with an emulator", packages, all) {
        return;
    }
    let mut test = recipe_cargo("test", "cross/linux-s390x.toml");
    let told = output(test.args(["-p", "http1", "-p", "revdial", "-p", "buildlet", "--lib"]));
    assert_eq!(told.matches("test result: ok").count(), 3, "{told}");
}
