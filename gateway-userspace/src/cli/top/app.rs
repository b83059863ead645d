//! What `gateway top` shows at the moment, and what keys do to it. Knows no terminal and no gateway.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    Look,
    history::History,
    tables::{Row, Table, table},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Routes,
    Upstreams,
    Kernel,
    Sources,
    Caches,
    Limits,
}

impl Page {
    pub const ALL: [(Page, &'static str); 6] = [
        (Page::Routes, "Routes"),
        (Page::Upstreams, "Upstreams"),
        (Page::Kernel, "Kernel"),
        (Page::Sources, "Sources"),
        (Page::Caches, "Caches"),
        (Page::Limits, "Limits"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// What a key asks of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Ban {
        source: String,
    },
    Unban {
        cidr: String,
    },
    /// `state`: "drain" or "up"; `name`: of an upstream or a service.
    Target {
        name: String,
        addr: String,
        service: bool,
        state: &'static str,
    },
    Quit,
}

impl Ask {
    /// As a question.
    pub fn question(&self) -> String {
        match self {
            Ask::Ban { source } => format!("Ban {source} in the kernel for 10 minutes? (y/n)"),
            Ask::Unban { cidr } => format!("Lift the ban on {cidr}? (y/n)"),
            Ask::Target { name, addr, state: "drain", .. } => {
                format!("Drain {addr} of {name} until it is taken up again? (y/n)")
            }
            Ask::Target { name, addr, .. } => format!("Take {addr} of {name} up again? (y/n)"),
            Ask::Quit => String::new(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Mode {
    List,
    /// The filter is being written.
    Filter,
    Help,
    /// One row, in full.
    Detail(String),
    Confirm(Ask),
}

pub struct App {
    pub page: Page,
    pub mode: Mode,
    pub filter: String,
    /// By page: the column to sort by, and whether the other way round.
    sort: [(usize, bool); 6],
    pub selected: usize,
    pub paused: bool,
    pub look: Look,
    pub history: History,
    /// What became of the last thing that was asked for, or why nothing is heard of the gateway.
    pub message: Option<String>,
}

impl Default for App {
    fn default() -> Self {
        App {
            page: Page::Routes,
            mode: Mode::List,
            filter: String::new(),
            sort: [(1, false), (3, false), (2, false), (2, false), (1, false), (4, false)],
            selected: 0,
            paused: false,
            look: Look::default(),
            history: History::default(),
            message: None,
        }
    }
}

impl App {
    pub fn take(&mut self, look: Look) {
        self.history.note(&look.rates);
        if !self.paused {
            self.look = look;
        }
        self.clamp();
    }

    pub fn sort(&self) -> (usize, bool) {
        self.sort[self.page.index()]
    }

    pub fn table(&self) -> Table {
        let mut table = table(self.page, &self.look);
        let (column, reverse) = self.sort();
        table.arrange(&self.filter, column, reverse);
        table
    }

    pub fn row(&self) -> Option<Row> {
        self.table().rows.into_iter().nth(self.selected)
    }

    fn clamp(&mut self) {
        self.selected = self.selected.min(self.table().rows.len().saturating_sub(1));
    }

    fn turn_to(&mut self, page: Page) {
        self.page = page;
        self.selected = 0;
        self.mode = Mode::List;
    }

    pub fn press(&mut self, key: KeyEvent) -> Option<Ask> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Ask::Quit);
        }
        self.message = None;
        match std::mem::replace(&mut self.mode, Mode::List) {
            Mode::Filter => {
                self.write_filter(key.code);
                None
            }
            Mode::Confirm(ask) => matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(ask),
            Mode::Help => None,
            Mode::Detail(of) => match key.code {
                KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => None,
                other => {
                    let ask = self.press_list(other);
                    if self.mode == Mode::List && !matches!(other, KeyCode::Tab | KeyCode::Char('1'..='6')) {
                        self.mode = Mode::Detail(of);
                    }
                    ask
                }
            },
            Mode::List => self.press_list(key.code),
        }
    }

    fn write_filter(&mut self, code: KeyCode) {
        self.mode = Mode::Filter;
        match code {
            KeyCode::Enter => self.mode = Mode::List,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::List;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < 40 => self.filter.push(c),
            _ => {}
        }
        self.clamp();
    }

    fn press_list(&mut self, code: KeyCode) -> Option<Ask> {
        match code {
            KeyCode::Char('q') => return Some(Ask::Quit),
            KeyCode::Char(digit @ '1'..='6') => self.turn_to(Page::ALL[digit as usize - '1' as usize].0),
            KeyCode::Tab | KeyCode::Right => self.turn_to(Page::ALL[(self.page.index() + 1) % 6].0),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(Page::ALL[(self.page.index() + 5) % 6].0),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected += 1;
                self.clamp();
            }
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => {
                self.selected += 10;
                self.clamp();
            }
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::Char('s') => {
                let columns = self.table().columns.len();
                let sort = &mut self.sort[self.page.index()];
                *sort = ((sort.0 + 1) % columns, false);
            }
            KeyCode::Char('r') => self.sort[self.page.index()].1 ^= true,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Esc => {
                self.filter.clear();
                self.clamp();
            }
            KeyCode::Enter => {
                if let Some(row) = self.row() {
                    self.mode = Mode::Detail(row.key);
                }
            }
            KeyCode::Char(c @ ('b' | 'B' | 'd' | 'u')) => match self.act(c) {
                Some(ask) => self.mode = Mode::Confirm(ask),
                None => self.message = Some(self.cannot(c)),
            },
            _ => {}
        }
        None
    }

    /// What a key would do to the selected row.
    fn act(&self, key: char) -> Option<Ask> {
        let row = self.row()?;
        match (self.page, key) {
            (Page::Sources, 'b') => Some(Ask::Ban { source: row.key }),
            (Page::Sources, 'B') => {
                let ban = self.look.bans.iter().find(|ban| super::tables::covers(ban, &row.key))?;
                Some(Ask::Unban { cidr: ban["cidr"].as_str()?.to_owned() })
            }
            (Page::Upstreams, 'd' | 'u') => {
                let (name, addr) = row.key.split_once('/')?;
                let service = !self.look.stats.upstreams.contains_key(name);
                let state = if key == 'd' { "drain" } else { "up" };
                Some(Ask::Target { name: name.to_owned(), addr: addr.to_owned(), service, state })
            }
            _ => None,
        }
    }

    fn cannot(&self, key: char) -> String {
        match key {
            'b' => "b bans a source: turn to page 4 (Sources)".into(),
            'B' => "B lifts a ban: choose a banned source on page 4".into(),
            _ => "d and u are for targets: turn to page 2 (Upstreams)".into(),
        }
    }
}
