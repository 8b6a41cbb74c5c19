//! The chat in a real browser: two tabs and one TCP client in a room, on one instance and on two.
//!
//! Needs `chromedriver` and a Chromium that it finds. With `GOBROKE_CHAT_SCREENSHOT=some.png` in the environment, a
//! screenshot of the tab with three people in the room is written there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::collections::BTreeSet;

use fantoccini::{Client, ClientBuilder, Locator, wd::WindowHandle};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tokio::process::Command;

use self::support::{Chat, DEADLINE, Program, RedisServer, TcpClient};

#[tokio::test]
async fn people_in_two_tabs_and_on_tcp_talk_in_one_room() {
    let chat = Chat::start_anywhere().await;
    let browser = Browser::start().await;
    let (ann, bob) = (
        browser.open(&chat, "Ann").await,
        browser.open(&chat, "Bob").await,
    );
    let mut cid = TcpClient::connect(chat.tcp).await;

    all_see_who_is_there(&browser, [&ann, &bob], &mut cid).await;
    all_hear_the_same_in_order(&browser, [&ann, &bob], &mut cid).await;
    browser.keep_screenshot().await;
    who_closes_the_tab_is_gone(&browser, &ann, bob, &mut cid).await;
    let bob = browser.open(&chat, "Bob").await;
    let chat = tabs_come_back_with_the_server(&browser, [&ann, &bob], chat).await;

    browser.client.clone().close().await.unwrap();
    chat.stop().await;
}

#[tokio::test]
async fn people_in_tabs_of_two_instances_share_rooms_and_who_is_there() {
    let server = RedisServer::start().await;
    let one = Chat::start_over(&server, "one").await;
    let two = Chat::start_over(&server, "two").await;
    let browser = Browser::start().await;
    let ann = browser.open(&one, "Ann").await;
    let bob = browser.open(&two, "Bob").await;
    let mut cid = TcpClient::connect(two.tcp).await;
    cid.joins("garden", "Cid").await;
    for (tab, name) in [(&ann, "Ann"), (&bob, "Bob")] {
        browser.show(tab).await;
        browser.wait_for(&member("Ann")).await;
        browser.wait_for(&member("Bob")).await;
        browser.wait_for(&room("lobby", 2)).await;
        browser.wait_for(&room("garden", 1)).await;
        if name == "Bob" {
            browser.wait_for("#messages > li").await;
        }
        browser.say(&format!("{name} is here")).await;
    }
    for tab in [&ann, &bob] {
        browser.show(tab).await;
        browser.wait_for("#messages > li:nth-child(2)").await;
        let said = ["Ann", "Bob"].map(|name| (json!(name), json!(format!("{name} is here"))));
        assert_eq!(browser.messages().await, said);
    }

    // Killed: nobody says that Ann left.
    drop(one);
    browser
        .wait_for("#members:not(:has(li[data-name=Ann]))")
        .await;
    browser.wait_for(&room("lobby", 1)).await;
    browser.client.clone().close().await.unwrap();
    two.stop().await;
}

async fn all_see_who_is_there(browser: &Browser, tabs: [&WindowHandle; 2], cid: &mut TcpClient) {
    cid.joins("lobby", "Cid").await;
    let members = cid.hears("members").await["members"].take();
    let names = members
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["name"].as_str().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), ["Ann", "Bob", "Cid"].into());
    cid.joins("garden", "Cid").await;
    for tab in tabs {
        browser.show(tab).await;
        for name in ["Ann", "Bob", "Cid"] {
            browser.wait_for(&member(name)).await;
        }
        browser.wait_for(&room("lobby", 3)).await;
        browser.wait_for(&room("garden", 1)).await;
    }
}

/// They talk, none waiting for another.
async fn all_hear_the_same_in_order(
    browser: &Browser,
    tabs: [&WindowHandle; 2],
    cid: &mut TcpClient,
) {
    for round in 1..=3 {
        cid.says("lobby", &format!("Cid says {round}")).await;
        for (tab, name) in tabs.into_iter().zip(["Ann", "Bob"]) {
            browser.show(tab).await;
            browser.say(&format!("{name} says {round}")).await;
        }
    }
    let mut heard = Vec::new();
    for _ in 0..9 {
        let said = cid.hears("said").await;
        heard.push((said["from"]["name"].clone(), said["text"].clone()));
    }
    for name in ["Ann", "Bob", "Cid"] {
        let said = heard
            .iter()
            .filter(|(from, _)| from == name)
            .map(|(_, text)| text);
        let expected = [1, 2, 3].map(|round| json!(format!("{name} says {round}")));
        assert_eq!(
            said.collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
    }
    for tab in tabs {
        browser.show(tab).await;
        browser.wait_for("#messages > li:nth-child(9)").await;
        assert_eq!(browser.messages().await, heard);
    }
}

async fn who_closes_the_tab_is_gone(
    browser: &Browser,
    ann: &WindowHandle,
    bob: WindowHandle,
    cid: &mut TcpClient,
) {
    browser.show(&bob).await;
    browser.client.close_window().await.unwrap();
    assert_eq!(cid.hears("left").await["member"]["name"], "Bob");
    browser.show(ann).await;
    browser
        .wait_for("#members:not(:has(li[data-name=Bob]))")
        .await;
    browser.wait_for(&member("Cid")).await;
}

/// Stops the server and starts it again, on the same ports.
async fn tabs_come_back_with_the_server(
    browser: &Browser,
    tabs: [&WindowHandle; 2],
    chat: Chat,
) -> Chat {
    let (http, tcp) = (chat.http.to_string(), chat.tcp.to_string());
    chat.stop().await;
    for tab in tabs {
        browser.show(tab).await;
        browser
            .wait_for("#status:not([data-state=connected])")
            .await;
    }
    let chat = Chat::start(&http, &tcp).await;
    for tab in tabs {
        browser.show(tab).await;
        browser.wait_for("#status[data-state=connected]").await;
        browser.wait_for(&member("Ann")).await;
        browser.wait_for(&member("Bob")).await;
        browser
            .wait_for("#members:not(:has(li[data-name=Cid]))")
            .await;
    }
    browser.say("back again").await;
    browser.show(tabs[0]).await;
    browser
        .wait_for("#messages > li:last-child[data-from-name=Bob]:nth-child(10)")
        .await;
    chat
}

fn member(name: &str) -> String {
    format!("#members li[data-name={name}]")
}

fn room(name: &str, members: usize) -> String {
    format!("#rooms li[data-room={name}][data-members='{members}']")
}

/// A headless Chromium, with a driver and a profile of its own. Dropping it kills both.
struct Browser {
    client: Client,
    _driver: Program,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Its home is the profile, too: the browser leaves nothing behind.
        let mut driver = Program::spawn(
            Command::new("chromedriver")
                .arg("--port=0")
                .env("HOME", profile.path()),
        );
        let port = driver.prints("was started successfully on port ").await;
        let options = json!({"args": [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,800",
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        let capabilities = Map::from_iter([("goog:chromeOptions".to_owned(), options)]);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", port.trim_end_matches('.')))
            .await
            .expect("the browser starts");
        Self {
            client,
            _driver: driver,
            _profile: profile,
        }
    }

    /// Opens the chat in a tab, and waits until it is connected.
    async fn open(&self, chat: &Chat, name: &str) -> WindowHandle {
        let tab = self.client.new_window(true).await.unwrap().handle;
        self.show(&tab).await;
        self.client
            .goto(&format!("http://{}/?room=lobby&name={name}", chat.http))
            .await
            .unwrap();
        self.wait_for("#status[data-state=connected]").await;
        self.wait_for(&member(name)).await;
        tab
    }

    async fn show(&self, tab: &WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.unwrap();
    }

    async fn say(&self, text: &str) {
        self.wait_for("#say-input")
            .await
            .send_keys(text)
            .await
            .unwrap();
        self.wait_for("#say-button:enabled")
            .await
            .click()
            .await
            .unwrap();
    }

    async fn wait_for(&self, css: &str) -> fantoccini::elements::Element {
        let wait = self
            .client
            .wait()
            .at_most(DEADLINE)
            .every(std::time::Duration::from_millis(20));
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!(
                "no {css}: {error}\n{}",
                self.client.source().await.unwrap_or_default()
            ),
        }
    }

    /// Who said what, as the page shows it.
    async fn messages(&self) -> Vec<(Value, Value)> {
        let script = "return [...document.querySelectorAll('#messages > li')]
            .map(item => [item.dataset.fromName, item.querySelector('.text').textContent])";
        serde_json::from_value(self.client.execute(script, vec![]).await.unwrap()).unwrap()
    }

    async fn keep_screenshot(&self) {
        if let Some(path) = std::env::var_os("GOBROKE_CHAT_SCREENSHOT") {
            std::fs::write(path, self.client.screenshot().await.unwrap()).unwrap();
        }
    }
}
