// SPDX-License-Identifier: Apache-2.0
//! What a mistake can be.

#![forbid(unsafe_code)]

use syn::{BinOp, Expr, GenericArgument, PathArguments, ReturnType, Type};

/// By what an operator is replaced. The first is its opposite where it has one.
pub fn replacements(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &[">=", "<="],
        BinOp::Le(_) => &[">", "<"],
        BinOp::Gt(_) => &["<=", ">="],
        BinOp::Ge(_) => &["<", ">"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+"],
        BinOp::Div(_) => &["*"],
        BinOp::Rem(_) => &["/"],
        BinOp::BitAnd(_) => &["|"],
        BinOp::BitOr(_) => &["&"],
        BinOp::BitXor(_) => &["|"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        BinOp::MulAssign(_) => &["+="],
        BinOp::BitOrAssign(_) => &["&="],
        BinOp::BitAndAssign(_) => &["|="],
        _ => &[],
    }
}

/// True if mistakes inside turn it into its opposite: then it need not be negated as a whole.
pub fn has_opposites(condition: &Expr) -> bool {
    match condition {
        Expr::Paren(inner) => has_opposites(&inner.expr),
        Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Not(_)),
        Expr::Binary(binary) => !replacements(&binary.op).is_empty(),
        Expr::Macro(_) | Expr::Let(_) | Expr::Lit(_) => true,
        _ => false,
    }
}

pub fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// What a function of this type can return without having done anything.
pub fn defaults(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec!["()".to_owned()],
        ReturnType::Type(_, output) => values(output),
    }
}

fn values(output: &Type) -> Vec<String> {
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    match output {
        Type::Tuple(tuple) if tuple.elems.is_empty() => list(&["()"]),
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => list(&["\"\""]),
            Type::Slice(_) if reference.mutability.is_none() => list(&["&[]"]),
            _ => Vec::new(),
        },
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Vec::new() };
            match last.ident.to_string().as_str() {
                "bool" => list(&["true", "false"]),
                "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
                    list(&["0", "1"])
                }
                "Option" => list(&["None"]),
                "String" | "Vec" | "BTreeMap" | "BTreeSet" | "HashMap" | "HashSet" | "PathBuf" => {
                    list(&["Default::default()"])
                }
                "Result" => match &last.arguments {
                    PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
                        Some(GenericArgument::Type(inner)) => {
                            values(inner).into_iter().map(|value| format!("Ok({value})")).collect()
                        }
                        _ => Vec::new(),
                    },
                    // fmt::Result, whose words are nobody's decision.
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}
