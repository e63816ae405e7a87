//! Validation without execution, which async-graphql has no function for.

use std::sync::Arc;

use async_graphql::{
    Request, ServerError, ValidationResult,
    async_trait::async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation},
};

use super::subgraph::ApiSchema;

/// A schema that validates and never executes.
pub struct Validator(ApiSchema);

impl Validator {
    /// `schema` must have been built with [`StopBeforeExecution`].
    pub fn new(schema: ApiSchema) -> Self {
        Self(schema)
    }

    /// Validates the document of a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn validate(&self, request: Request) -> Result<(), Vec<ServerError>> {
        let errors = self.0.execute(request).await.errors;
        let valid = errors.iter().any(|error| error.source::<Valid>().is_some());
        if valid { Ok(()) } else { Err(in_document_order(errors)) }
    }
}

/// Sorts errors by their places in the document. async-graphql validates the fragments of a document in an order that is
/// another one each time, and so are its errors.
pub fn in_document_order(mut errors: Vec<ServerError>) -> Vec<ServerError> {
    errors.sort_by(|a, b| {
        let place = |error: &ServerError| error.locations.first().map(|at| (at.line, at.column));
        place(a).cmp(&place(b)).then_with(|| a.message.cmp(&b.message))
    });
    errors
}

/// Ends a request that has been validated.
pub struct StopBeforeExecution;

/// What it ends with.
struct Valid;

impl ExtensionFactory for StopBeforeExecution {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Extension for StopBeforeExecution {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        next.run(ctx).await?;
        let mut valid = ServerError::new("valid", None);
        valid.source = Some(Arc::new(Valid));
        Err(vec![valid])
    }
}
