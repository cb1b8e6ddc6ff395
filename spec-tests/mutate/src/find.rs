// SPDX-License-Identifier: Apache-2.0
//! Finds the places of a file, and puts the choices in.
//!
//! Left out is what is decided before the program runs (constants, patterns, types, `const fn`), what `cfg` chooses, tests, what macros
//! are given, and the words of Display and Debug.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Pat, Signature, Stmt, UnOp};

use crate::Mutant;
use crate::kinds;

/// A file's mutants, and the text in which they can be chosen.
pub struct Found {
    pub text: String,
    pub mutants: Vec<Mutant>,
}

/// Those of `file`, numbered from `first`. Those of `without` have their numbers, and are not in the text.
pub fn mutants(file: &str, text: &str, first: u32, without: &BTreeSet<u32>) -> syn::Result<Found> {
    let tree = syn::parse_file(text)?;
    let home = if file.starts_with("runtime/") { "crate" } else { "corten" };
    let mut finder =
        Finder { file, text, home, first, without, names: Vec::new(), mutants: Vec::new(), put: Vec::new() };
    finder.visit_file(&tree);
    Ok(Found { text: finder.text_with_choices(), mutants: finder.mutants })
}

struct Finder<'a> {
    file: &'a str,
    text: &'a str,
    /// The crate that has the module `mutant`.
    home: &'static str,
    first: u32,
    without: &'a BTreeSet<u32>,
    /// Where we are: modules, types, functions.
    names: Vec<String>,
    mutants: Vec<Mutant>,
    /// What is put in, and where; at the same place in this order.
    put: Vec<(usize, String)>,
}

impl<'a> Finder<'a> {
    fn text_with_choices(&mut self) -> String {
        self.put.sort_by_key(|(at, _)| *at);
        let (mut made, mut done) = (String::new(), 0);
        for (at, text) in &self.put {
            made.push_str(&self.text[done..*at]);
            made.push_str(text);
            done = *at;
        }
        made + &self.text[done..]
    }

    fn words(&self, at: &impl Spanned) -> &'a str {
        &self.text[at.span().byte_range()]
    }

    /// A new mutant, and the expression that is true when it is chosen; None if it is left out.
    fn mutant(&mut self, at: Range<usize>, operator: &'static str, new: &str) -> Option<(u32, String)> {
        let number = self.first + self.mutants.len() as u32;
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.mutants.push(Mutant {
            number,
            file: self.file.to_owned(),
            line: self.text[..at.start].matches('\n').count() + 1,
            function: self.names.join("::"),
            operator,
            text: one_line(&self.text[at]),
            new: one_line(new),
        });
        let chosen = format!("{}::mutant::is({number})", self.home);
        (!self.without.contains(&number)).then_some((number, chosen))
    }

    fn put(&mut self, at: usize, text: impl Into<String>) {
        self.put.push((at, text.into()));
    }

    /// Between the two comments stands what is wrong if this mutant does not compile.
    fn marked(number: u32, text: &str) -> String {
        format!("/*<{number}*/{text}/*{number}>*/")
    }

    /// An expression that may be one of `others` instead; `inside` goes on in it.
    fn choice(
        &mut self,
        at: &Expr,
        operator: &'static str,
        others: &[String],
        inside: impl FnOnce(&mut Self),
    ) {
        let range = at.span().byte_range();
        let mut before = String::new();
        for other in others {
            if let Some((number, chosen)) = self.mutant(range.clone(), operator, other) {
                before += &format!("if {chosen} {{ {} }} else ", Self::marked(number, other));
            }
        }
        if before.is_empty() {
            return inside(self);
        }
        self.put(range.start, format!("({before}{{ "));
        inside(self);
        self.put(range.end, " })");
    }

    /// A bool that may be its opposite.
    fn opposite(&mut self, at: &Expr, operator: &'static str, inside: impl FnOnce(&mut Self)) {
        let range = at.span().byte_range();
        let Some((number, chosen)) = self.mutant(range.clone(), operator, &format!("!({})", self.words(at)))
        else {
            return inside(self);
        };
        self.put(range.start, format!("({} != (", Self::marked(number, &chosen)));
        inside(self);
        self.put(range.end, "))");
    }

    /// What an `if`, a `while` or an operand of `&&` decides by.
    fn condition(&mut self, condition: &Expr) {
        if kinds::has_opposites(condition) {
            self.visit_expr(condition);
        } else {
            self.opposite(condition, "condition", |f| f.visit_expr(condition));
        }
    }

    fn function(
        &mut self,
        attributes: &[Attribute],
        signature: &Signature,
        body: &Block,
        inside: impl FnOnce(&mut Self),
    ) {
        if is_left_out(attributes) || signature.constness.is_some() {
            return;
        }
        self.names.push(signature.ident.to_string());
        let open = body.brace_token.span.open().byte_range().end;
        let whole = body.span().byte_range();
        let done = self.text[open..whole.end - 1].trim();
        for value in kinds::defaults(&signature.output) {
            let same = value == done || (value == "()" && done.is_empty());
            if same || done == format!("Self::{value}") {
                continue;
            }
            if let Some((number, chosen)) = self.mutant(signature.span().byte_range(), "body", &value) {
                self.put(open, Self::marked(number, &format!(" if {chosen} {{ return {value}; }}")));
            }
        }
        inside(self);
        self.names.pop();
    }

    /// A statement that may be left out. Its value is nobody's.
    fn statement(&mut self, statement: &Stmt, inside: impl FnOnce(&mut Self)) {
        let range = statement.span().byte_range();
        let Some((number, chosen)) = self.mutant(range.clone(), "statement", "") else { return inside(self) };
        self.put(range.start, format!("/*<{number}*/if !{chosen} {{ "));
        inside(self);
        self.put(range.end, format!(" }}/*{number}>*/"));
    }
}

/// True for tests, and for what is not part of every build.
fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("test"))
}

/// True if nothing comes of the statement but what it does.
fn only_does(expression: &Expr) -> bool {
    match expression {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_) => true,
        Expr::Try(inner) => only_does(&inner.expr),
        Expr::Await(inner) => only_does(&inner.base),
        Expr::Binary(binary) => kinds::replacements(&binary.op)
            .iter()
            .any(|op| op.ends_with('=') && op.len() == 2 && !matches!(*op, "!=" | "==" | "<=" | ">=")),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_left_out(&module.attrs) {
            self.names.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.names.pop();
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = item
            .trait_
            .as_ref()
            .and_then(|(path, _)| path.segments.last())
            .map(|last| last.ident.to_string());
        if is_left_out(&item.attrs) || matches!(name.as_deref(), Some("Display" | "Debug")) {
            return;
        }
        self.names.push(self.words(&item.self_ty).to_owned());
        item.items.iter().for_each(|item| self.visit_impl_item(item));
        self.names.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block, |f| f.visit_block(&item.block));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block, |f| f.visit_block(&item.block));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.attrs, &item.sig, body, |f| f.visit_block(body));
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        match statement {
            Stmt::Expr(expression, Some(_)) if only_does(expression) => {
                self.statement(statement, |f| f.visit_expr(expression));
            }
            Stmt::Local(local) if is_left_out(&local.attrs) => {}
            _ => visit::visit_stmt(self, statement),
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if is_left_out(&arm.attrs) {
            return;
        }
        if let Pat::Guard(guarded) = &arm.pat {
            let guard = &*guarded.guard;
            if kinds::has_let(guard) {
                self.visit_expr(guard);
            } else {
                self.guard(guard);
            }
        }
        self.visit_expr(&arm.body);
    }

    fn visit_expr_if(&mut self, expression: &'ast syn::ExprIf) {
        self.condition(&expression.cond);
        self.visit_block(&expression.then_branch);
        if let Some((_, other)) = &expression.else_branch {
            self.visit_expr(other);
        }
    }

    fn visit_expr_while(&mut self, expression: &'ast syn::ExprWhile) {
        self.condition(&expression.cond);
        self.visit_block(&expression.body);
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        match expression {
            Expr::Binary(binary) => {
                let (left, right) = (self.words(&binary.left), self.words(&binary.right));
                let joins = matches!(binary.op, syn::BinOp::And(_) | syn::BinOp::Or(_));
                let inside = |f: &mut Self| {
                    for side in [&binary.left, &binary.right] {
                        if joins { f.condition(side) } else { f.visit_expr(side) }
                    }
                };
                if kinds::has_let(expression) {
                    return inside(self);
                }
                let assigns = only_does(expression);
                let other = |op: &&str| {
                    if assigns { format!("{left} {op} {right}") } else { format!("({left}) {op} ({right})") }
                };
                let others: Vec<_> = kinds::replacements(&binary.op).iter().map(other).collect();
                self.choice(expression, "operator", &others, inside);
            }
            Expr::Unary(unary)
                if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_))
                    && !matches!(*unary.expr, Expr::Lit(_)) =>
            {
                let other = self.words(&unary.expr).to_owned();
                self.choice(expression, "operator", &[other], |f| f.visit_expr(&unary.expr));
            }
            Expr::Macro(called) if called.mac.path.is_ident("matches") => {
                self.opposite(expression, "condition", |_| ())
            }
            Expr::Const(_) => {}
            _ => visit::visit_expr(self, expression),
        }
    }

    // Decided before the program runs.
    fn visit_expr_repeat(&mut self, expression: &'ast syn::ExprRepeat) {
        self.visit_expr(&expression.expr);
    }
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_macro(&mut self, _: &'ast syn::ItemMacro) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_item_struct(&mut self, _: &'ast syn::ItemStruct) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

impl Finder<'_> {
    /// A guard that may always hold, or never.
    fn guard(&mut self, guard: &Expr) {
        let range = guard.span().byte_range();
        let always = self.mutant(range.clone(), "guard", "true");
        let never = self.mutant(range.clone(), "guard", "false");
        let chosen = |mutant: Option<(u32, String)>| {
            mutant.map_or("false".to_owned(), |(number, chosen)| Self::marked(number, &chosen))
        };
        self.put(range.start, format!("({} || !{} && (", chosen(always), chosen(never)));
        self.visit_expr(guard);
        self.put(range.end, "))");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mutants of a function with that body, as "operator: text -> new", and the whole text.
    fn of(body: &str) -> (Vec<String>, String) {
        let text = format!("fn f(a: bool, b: u8) -> bool {{ {body} }}");
        let found = mutants("shim/src/pod.rs", &text, 1, &BTreeSet::new()).unwrap();
        // Still Rust.
        syn::parse_file(&found.text).unwrap();
        (
            found.mutants.iter().map(|m| format!("{}: {} -> {}", m.operator, m.text, m.new)).collect(),
            found.text,
        )
    }

    fn check(body: &str, wanted: &[&str]) {
        let (found, _) = of(body);
        // The first two are the body's: true, false.
        assert_eq!(found[2..], *wanted, "{body}");
    }

    #[test]
    fn operators_conditions_guards_and_statements() {
        check(
            "a && b < 3",
            &[
                "operator: a && b < 3 -> (a) || (b < 3)",
                "condition: a -> !(a)",
                "operator: b < 3 -> (b) >= (3)",
                "operator: b < 3 -> (b) <= (3)",
            ],
        );
        check("if g() { h(b); } a", &["condition: g() -> !(g())", "statement: h(b); -> "]);
        check("match b { 1 if a => true, _ => a }", &["guard: a -> true", "guard: a -> false"]);
        check(
            "!matches!(b, 1)",
            &[
                "operator: !matches!(b, 1) -> matches!(b, 1)",
                "condition: matches!(b, 1) -> !(matches!(b, 1))",
            ],
        );
        check(
            "let mut c = 0; c += b; c = 1; a",
            &["statement: c += b; -> ", "operator: c += b -> c -= b", "statement: c = 1; -> "],
        );
    }

    #[test]
    fn what_cannot_be_chosen_is_let_alone() {
        check("if let Some(x) = g() && x == 1 { return a; } a", &["operator: x == 1 -> (x) != (1)"]);
        check("const C: u8 = 1 + 2; static S: [u8; 1 + 2] = [0; 1 + 2]; a", &[]);
        check("println!(\"{}\", b + 1); #[cfg(test)] let c = b + 1; a", &[]);
        let none =
            |text: &str| mutants("runtime/src/x.rs", text, 1, &BTreeSet::new()).unwrap().mutants.is_empty();
        assert!(none("const fn f(a: u8) -> bool { a == 1 }"));
        assert!(none("#[cfg(test)] mod tests { fn f(a: u8) -> bool { a == 1 } }"));
        assert!(none("impl Display for X { fn fmt(&self) -> bool { self.a == 1 } }"));
    }

    #[test]
    fn a_function_returns_what_its_type_allows() {
        let bodies = |text: &str| {
            let found = mutants("runtime/src/x.rs", text, 1, &BTreeSet::new()).unwrap().mutants;
            found.into_iter().map(|m| m.new).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(bodies("fn f() { loop {} }"), "()");
        assert_eq!(bodies("fn f() {}"), "");
        assert_eq!(bodies("fn f() -> Result<Option<X>> { g() }"), "Ok(None)");
        assert_eq!(bodies("fn f() -> Option<X> { None }"), "");
        assert_eq!(bodies("fn f() -> io::Result<u32> { g() }"), "Ok(0), Ok(1)");
        assert_eq!(bodies("fn f() -> Vec<u8> { g() }"), "Default::default()");
        assert_eq!(bodies("fn f() -> &'static str { g() }"), "\"\"");
        assert_eq!(bodies("fn f() -> Widget { g() }"), "");
    }

    #[test]
    fn one_that_is_left_out_keeps_its_number() {
        let text = "fn f(a: u8) -> u8 { a - 1 }";
        let found = mutants("runtime/src/x.rs", text, 7, &BTreeSet::from([9])).unwrap();
        assert_eq!(found.mutants.iter().map(|m| m.number).collect::<Vec<_>>(), [7, 8, 9]);
        assert!(
            found.text.contains("crate::mutant::is(8)") && !found.text.contains("is(9)"),
            "{}",
            found.text
        );
    }
}
